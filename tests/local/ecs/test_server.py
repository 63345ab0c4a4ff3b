"""Start, stop, ports, logs and the foreground process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from ecs_queue.errors import UsageError
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, TimerRunner, local_environment
from ecs_queue.local.ecs.server import base_environment
from tests.local.ecs.checked_client import TIMEOUT_SECONDS, make_checked_client, run_task, wait_for_status
from tests.processes import IMPORT_ROOT


def test_it_listens_on_loopback_only() -> None:
    with LocalEcs(runner=TimerRunner()) as server:
        listening = [
            one.laddr.ip
            for one in psutil.Process().net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and one.laddr.port == server.port
        ]
    assert listening == ["127.0.0.1"]


def test_start_and_stop_may_be_called_twice_and_a_restart_is_empty() -> None:
    server = LocalEcs(runner=TimerRunner())
    server.start()
    server.start()
    client = make_checked_client(server)
    run_task(client, "true")
    client.close()
    server.stop()
    server.stop()
    with server:
        assert server.stats()["tasks_created"] == 0


def test_a_real_runner_serves_again_after_a_stop() -> None:
    server = LocalEcs()
    for _ in range(2):
        with server:
            client = make_checked_client(server)
            wait_for_status(client, run_task(client, "true"))
            client.close()


def test_a_taken_port_is_named_in_the_error() -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        server = LocalEcs(LocalEcsOptions(port=port), TimerRunner())
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}"):
            server.start()
    with server:
        assert server.endpoint_url == f"http://127.0.0.1:{port}"


def test_without_aiohttp_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(UsageError, match=r"pip install 'ecs-queue\[local\]'"):
        LocalEcs(runner=TimerRunner()).start()


def test_before_the_start_url_counters_and_logs_raise_with_advice() -> None:
    server = LocalEcs()
    for call in (lambda: server.endpoint_url, server.stats, lambda: server.log_path("0" * 32)):
        with pytest.raises(UsageError, match=r"start\(\)"):
            call()


def test_logs_in_a_directory_of_the_user_stay_and_others_go(tmp_path: Path) -> None:
    kept = LocalEcs(LocalEcsOptions(log_dir=tmp_path / "new" / "logs"))
    own = LocalEcs()
    paths = []
    for server in (kept, own):
        with server:
            client = make_checked_client(server)
            arn = run_task(client, "echo", "hello")
            wait_for_status(client, arn)
            client.close()
            paths.append(server.log_path(arn))
            assert paths[-1].read_text() == "hello\n"
    assert [path.exists() for path in paths] == [True, False]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_foreground_server_ends_in_order_on_a_signal(number: signal.Signals) -> None:
    program = (
        "from ecs_queue.local.ecs import LocalEcsOptions, run_local_ecs\n"
        "run_local_ecs(LocalEcsOptions(), lambda url: print(url, flush=True))\n"
        "print('over')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=IMPORT_ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as page:
            assert b"a development tool" in page.read()
        process.send_signal(number)
        assert process.stdout.read() == "over\n"
        assert process.wait(TIMEOUT_SECONDS) == 0


def test_the_base_environment_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.delenv("HOME", raising=False)
    found = base_environment(LocalEcsOptions(region="eu-west-1"))
    assert found["AWS_REGION"] == "eu-west-1"
    assert found["PATH"] == os.environ["PATH"]
    assert not {"SECRET", "HOME", "ECS_CONTAINER_METADATA_URI_V4"} & found.keys()


def test_the_local_environment_connects_to_the_local_stack() -> None:
    found = local_environment("http://127.0.0.1:1", "redis://127.0.0.1:2/0")
    assert found["AWS_ENDPOINT_URL_ECS"] == "http://127.0.0.1:1"
    assert found["AIRFLOW__ECS_QUEUE__BROKER_URL"] == "redis://127.0.0.1:2/0"
    assert found["AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER"] == "local"
    assert found["AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION"] == "local"
    assert found["AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME"] == "main"
    assert found["AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE"] == "FARGATE"
    assert found["AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS"] == "subnet-local"
    assert found["AWS_REGION"] == found["AWS_DEFAULT_REGION"] == "us-east-1"
    assert found["AWS_ACCESS_KEY_ID"] == found["AWS_SECRET_ACCESS_KEY"] == "local"
    assert found["AWS_EC2_METADATA_DISABLED"] == "true"
