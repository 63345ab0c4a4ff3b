"""`local` and `local-ecs` as processes: what they print can be used, and Ctrl-C ends all of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.cli.conftest import Invoke
from tests.processes import CLI_COMMAND, assert_process_ended
from tests.servers import require_redis_binary
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]


@contextmanager
def running(*arguments: str, environ: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A command that stays; killed at the end if it still runs."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*CLI_COMMAND, *arguments], env=environ, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[bytes], words: str) -> str:
    """stderr until a line with `words`."""
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline().decode()
        assert line, said
        said += line
    return said


def test_local_prints_an_environment_in_which_a_command_runs_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    require_redis_binary()
    environ = {**os.environ, "AWS_SESSION_TOKEN": "it's mine", "TMPDIR": str(tmp_path)}
    with running("local", "--dir", str(tmp_path / "kept"), environ=environ) as process:
        said = until(process, "Ctrl-C here ends everything")
        pids = [int(pid) for pid in re.findall(r"pid (\d+)", said)]
        assert process.stdout is not None
        script = b"".join(iter(process.stdout.readline, b"export AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS=subnet-local\n"))
        (tmp_path / "env.sh").write_bytes(script + b"export AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS=subnet-local\n")
        use = f'. {tmp_path}/env.sh; "$@"'
        command = [*CLI_COMMAND, "submit", "--wait", "--json", "--", "sh", "-c", "echo hello; exit 3"]
        done = subprocess.run(["sh", "-c", use, "sh", *command], env=environ, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (3, b"")
        assert json.loads(done.stdout)["state"] == "FAILED"
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=20)
        assert process.returncode == 0
        assert rest == b"stopping\n"
    for pid in pids:
        assert_process_ended(pid)
    assert [path.read_text() for path in (tmp_path / "kept" / "tasks").iterdir()] == ["hello\n"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["env.sh", "kept"]


def test_local_starts_a_killed_worker_again_and_prints_json_on_request(tmp_path: Path) -> None:
    require_redis_binary()
    with running("local", "--json", "--workers", "2") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert sorted(ready["workers"]) == ["local-1", "local-2"]
        assert ready["environment"]["AWS_ENDPOINT_URL_ECS"].startswith("http://127.0.0.1:")
        os.kill(ready["workers"]["local-2"], signal.SIGKILL)
        said = until(process, "the worker local-2 ended by itself with status -9; started again (pid ")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert_process_ended(ready["workers"]["local-1"])
    assert_process_ended(int(said.rpartition("(pid ")[2].partition(")")[0]))


def test_a_local_ecs_prints_its_url_and_answers_boto3_until_it_is_stopped(tmp_path: Path) -> None:
    options = ["--fault", "capacity=1", "--seed", "7", "--log-dir", str(tmp_path), "--stop-timeout", "1"]
    with running("local-ecs", *options) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert "runs commands as your user" in until(process, "Ctrl-C ends it")
        client = boto3.client("ecs", endpoint_url=url, region_name="us-east-1")
        assert client.describe_clusters(clusters=["local"])["clusters"][0]["status"] == "ACTIVE"
        answer = client.run_task(cluster="local", taskDefinition="local")
        assert [failure["reason"] for failure in answer["failures"]] == ["RESOURCE:CPU"]
        client.close()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0


def test_a_local_ecs_has_the_given_quotas(tmp_path: Path) -> None:
    options = ["--json", "--run-task-rate", "0.01", "--run-task-burst", "1", "--log-dir", str(tmp_path)]
    with running("local-ecs", *options) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["endpoint_url"]
        client = boto3.client("ecs", endpoint_url=url, region_name="us-east-1")
        override = {"containerOverrides": [{"name": "main", "command": ["true"]}]}
        client.run_task(cluster="local", taskDefinition="local", overrides=override)
        wait_until(lambda: bool(list(tmp_path.iterdir())), "the command has run", 20)
        client.meta.config.retries = {"total_max_attempts": 1}
        with pytest.raises(ClientError, match="ThrottlingException"):
            client.run_task(cluster="local", taskDefinition="local", overrides=override)
        client.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fault", "rain=0.5"], "--fault: expected NAME=PROBABILITY"),
        (["--fault", "throttle=often"], "--fault: expected NAME=PROBABILITY"),
        (["--fault", "throttle"], "--fault: expected NAME=PROBABILITY"),
        (["--fault", "throttle=1.5"], "fault throttle: expected a probability"),
        (["--fault", "operations=1"], "--fault: expected NAME=PROBABILITY"),
        (["--event-fault", "throttle=0.5"], "--event-fault: expected NAME=PROBABILITY"),
        (["--event-fault", "drop=2"], "event fault drop: expected a probability"),
        (["--event-queue-url", "events"], "--event-queue-url: expected a URL"),
        (["--run-task-rate", "0"], "quota rate: expected calls a second > 0"),
        (["--port", "70000"], "--port"),
    ],
)
def test_a_local_ecs_refuses_invalid_options(invoke: Invoke, arguments: list[str], words: str) -> None:
    done = invoke("local-ecs", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
