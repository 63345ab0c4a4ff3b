"""The local stack works, is isolated from the user's settings, and leaves no process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.errors import RetryableError, UsageError
from ecs_queue.local.ecs import LocalEcsOptions
from ecs_queue.local.stack import LocalStack, StackOptions
from tests.processes import IMPORT_ROOT, assert_process_ended
from tests.servers import require_redis_binary
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _needs_a_server() -> None:
    require_redis_binary()


def test_a_request_runs_and_all_processes_end_with_the_stack(tmp_path: Path) -> None:
    progress: list[str] = []
    stack = LocalStack(
        StackOptions(
            workers=2,
            directory=tmp_path / "kept",
            ecs=LocalEcsOptions(log_dir=tmp_path / "kept" / "tasks"),
            config_values={"retry_base_seconds": "0.1"},
        )
    )
    stack.start(progress.append)
    try:
        pids = stack.pids
        assert sorted(pids) == ["local-1", "local-2"]
        assert [line.split()[0] for line in progress] == ["server", "local", "workers"]
        with EcsQueue.from_config(environ=stack.environ) as queue:
            assert queue.config.retry_base_seconds == 0.1
            result = queue.submit(["sh", "-c", "echo hello; exit 3"]).result(timeout=30)
            assert {worker.pid for worker in queue.ledger.list_workers()} == set(pids.values())
        assert result.exit_code == 3
        assert stack.exited_workers() == {}
    finally:
        stack.stop()
    stack.stop()
    for pid in pids.values():
        assert_process_ended(pid)
    assert [path.read_text() for path in (tmp_path / "kept" / "tasks").iterdir()] == ["hello\n"]
    assert "has stopped" in (tmp_path / "kept" / "local-1.log").read_text()
    again = LocalStack(StackOptions(workers=0, directory=tmp_path / "kept"))
    with again, EcsQueue.from_config(environ=again.environ, owner="") as queue:
        assert queue.status(result.id).exit_code == 3  # the directory keeps the requests


def test_the_users_settings_do_not_reach_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "real")
    monkeypatch.setenv("ECS_QUEUE_CONFIG", "/etc/production.cfg")
    monkeypatch.setenv("AIRFLOW__ECS_QUEUE__LEDGER_URL", "redis://production/0")
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__ROLE_ARN", "arn:aws:iam::123456789012:role/production")
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR_GPU__CLUSTER", "production")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "internal")
    with LocalStack(StackOptions(workers=0)) as stack:
        assert "production" not in json.dumps(stack.environ)
        assert set(stack.variables_to_unset) >= {
            "AWS_PROFILE",
            "AWS_SESSION_TOKEN",
            "ECS_QUEUE_CONFIG",
            "AIRFLOW__ECS_QUEUE__LEDGER_URL",
            "AIRFLOW__AWS_ECS_EXECUTOR__ROLE_ARN",
            "AIRFLOW__AWS_ECS_EXECUTOR_GPU__CLUSTER",
        }
        assert not set(stack.variables_to_unset) & set(stack.exports)
        assert stack.environ["PATH"] == os.environ["PATH"]
        assert stack.environ["NO_PROXY"] == stack.environ["no_proxy"] == "internal,127.0.0.1"
        config = load_config(environ=stack.environ)
        assert config.ledger_url == config.broker_url == stack.redis_url
        config.profile("default").require_launchable()


def test_a_taken_port_is_reported_and_no_process_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stack = LocalStack(StackOptions(ecs=LocalEcsOptions(port=taken.getsockname()[1])))
        with pytest.raises(UsageError, match="choose another port"):
            stack.start()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_cannot_start_is_reported_with_its_last_log_line(tmp_path: Path) -> None:
    stack = LocalStack(StackOptions(directory=tmp_path, worker_args=("--queues", "a/b")))
    with pytest.raises(UsageError, match="the worker local-1 ended with status 2: ecs-queue: --queues"):
        stack.start()


@pytest.mark.parametrize("part", ["worker", "server"])
@pytest.mark.parametrize("keeps_directory", [True, False])
def test_a_killed_part_is_started_again_and_no_request_is_lost(
    tmp_path: Path, part: str, keeps_directory: bool
) -> None:
    options = StackOptions(
        directory=tmp_path if keeps_directory else None,
        config_values={"lease_seconds": "15", "retry_base_seconds": "0.1"},
    )
    with LocalStack(options) as stack:
        assert stack.restart_ended_parts() == []
        with EcsQueue.from_config(environ=stack.environ) as queue:
            before = queue.submit(["sh", "-c", "sleep 2; exit 3"]).id
            wait_until(lambda: queue.status(before).state == "LAUNCHED", "it is launched", 20)
        # No client is left that could submit the request again.
        os.kill(stack.pids["local-1"] if part == "worker" else stack.server_pid, signal.SIGKILL)
        sentences: list[str] = []

        def is_noticed() -> bool:
            sentences.extend(stack.restart_ended_parts())
            return bool(sentences)

        wait_until(is_noticed, "it is noticed", 20)
        assert len(sentences) == 1
        assert part in sentences[0]
        assert "started again" in sentences[0]
        with EcsQueue.from_config(environ=stack.environ) as queue:
            wait_until(lambda: queue.status(before).exit_code == 3, "it has ended", 60)
            assert queue.submit(["true"]).result(timeout=60).state == "SUCCESS"
        assert stack.restart_ended_parts() == []


def test_a_part_that_ends_again_and_again_is_given_up_with_the_reason(tmp_path: Path) -> None:
    with LocalStack(StackOptions(directory=tmp_path)) as stack:

        def kill_and_restart() -> None:
            os.kill(stack.pids["local-1"], signal.SIGKILL)
            wait_until(stack.restart_ended_parts, "it is noticed", 20)

        for _ in range(5):
            kill_and_restart()
        with pytest.raises(RetryableError, match="the worker local-1 ended 6 times within 60 s"):
            kill_and_restart()


def test_a_stack_whose_process_is_killed_leaves_no_process(tmp_path: Path) -> None:
    code = """
import sys, time
from ecs_queue.local.stack import LocalStack
stack = LocalStack()
stack.start(lambda line: print(line, flush=True))
print("ready", flush=True)
time.sleep(60)
"""
    environ = {**os.environ, "PYTHONPATH": str(IMPORT_ROOT), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environ, text=True)
    assert process.stdout is not None
    with process.stdout:
        lines = list(iter(process.stdout.readline, "ready\n"))
        process.send_signal(signal.SIGKILL)
        process.wait()
    pids = [int(part.split(")")[0]) for line in lines for part in line.split("pid ")[1:]]
    assert len(pids) == 2
    for pid in pids:
        assert_process_ended(pid)
