"""`worker` as a process: ready, stopped in order, ended at once, refused at the start."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, local_environment
from ecs_queue.protocol.states import State
from tests.cli.conftest import Invoke
from tests.processes import CLI_COMMAND, QUICK_SETTINGS, merged_environ
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture
def latency_seconds() -> float:
    """How long a call takes: long enough to be in hand when a signal comes."""
    return 3.0


@pytest.fixture
def http_client() -> str:
    """What sends the worker's calls to ECS."""
    return "botocore"


@pytest.fixture
def slow_ecs(tmp_path: Path, latency_seconds: float) -> Iterator[LocalEcs]:
    with LocalEcs(LocalEcsOptions(latency_seconds=latency_seconds, log_dir=tmp_path / "tasks")) as server:
        yield server


@pytest.fixture
def environ(slow_ecs: LocalEcs, redis_url: str, http_client: str) -> dict[str, str]:
    patient = {
        "AIRFLOW__ECS_QUEUE__HTTP_CLIENT": http_client,
        "AIRFLOW__ECS_QUEUE__LEASE_SECONDS": "30",
        "AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "False",
    }
    return merged_environ(QUICK_SETTINGS, local_environment(slow_ecs.endpoint_url, redis_url), patient)


class WorkerProcess:
    """A worker that is ready, and its log."""

    def __init__(self, environ: Mapping[str, str], log: Path, *arguments: str) -> None:
        self.log = log
        command = [*CLI_COMMAND, "worker", "--name", "w1", "--json", *arguments]
        with log.open("wb") as sink:
            self.process = subprocess.Popen(command, env=dict(environ), stdout=subprocess.PIPE, stderr=sink)
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline())

    def wait_for_output(self, words: str) -> None:
        wait_until(lambda: words in self.log.read_text(), words, 20)

    def kill(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def started(environ: dict[str, str], tmp_path: Path) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(environ, tmp_path / "worker.log", "--log-level", "debug", "--log-format", "json")
    yield worker
    worker.kill()


def test_a_worker_reports_when_it_is_ready_and_logs_one_event_a_line(started: WorkerProcess) -> None:
    assert started.ready["worker"] == "w1"
    assert started.ready["pid"] == started.process.pid
    assert (started.ready["queues"], started.ready["concurrency"]) == (["default"], 32)
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(10) == 0
    events = [json.loads(line) for line in started.log.read_text().splitlines()]
    names = [event["event"] for event in events]
    assert next(name for name in names if not name.startswith("check.")) == "worker.started"
    assert names[-2:] == ["worker.stopping", "worker.stopped"]


@pytest.mark.parametrize("http_client", ["botocore", "curl"])
@pytest.mark.parametrize("latency_seconds", [60.0])  # the call does not end on a slow machine either
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_finishes_the_calls_and_a_second_one_ends_the_worker_at_once(
    started: WorkerProcess, environ: dict[str, str], number: signal.Signals
) -> None:
    with EcsQueue.from_config(environ=environ, owner="") as client:
        client.submit(["true"], id="a1")
        started.wait_for_output('"event": "launch.called"')
        started.process.send_signal(number)
        started.wait_for_output('"event": "worker.stopping"')
        time.sleep(1.1)  # two SIGTERMs within a second are one
        started.process.send_signal(number)
        # The status of an orderly stop, which waits for the call in hand, is 0.
        assert started.process.wait(20) == 128 + (signal.SIGTERM if number is signal.SIGHUP else number)
        assert client.status("a1").state is State.LAUNCHING
    assert "other workers take over its requests" in started.log.read_text()


def test_a_sigterm_that_comes_twice_at_once_as_from_gnu_timeout_is_one(
    started: WorkerProcess, environ: dict[str, str]
) -> None:
    with EcsQueue.from_config(environ=environ, owner="") as client:
        client.submit(["true"], id="a1")
        started.wait_for_output('"event": "launch.called"')
        started.process.send_signal(signal.SIGTERM)
        started.process.send_signal(signal.SIGTERM)
        assert started.process.wait(20) == 0
    assert "ends at once" not in started.log.read_text()


@pytest.mark.parametrize("http_client", ["botocore", "curl"])
def test_one_signal_waits_for_the_running_call_and_is_status_0(started: WorkerProcess, environ: dict[str, str]) -> None:
    with EcsQueue.from_config(environ=environ, owner="") as client:
        client.submit(["sleep", "30"], id="a1")
        started.wait_for_output('"event": "launch.called"')
        started.process.send_signal(signal.SIGTERM)
        assert started.process.wait(10) == 0
        assert client.status("a1").state is State.LAUNCHED


def test_without_info_logs_a_worker_still_reports_that_it_is_ready(environ: dict[str, str], tmp_path: Path) -> None:
    worker = WorkerProcess(environ, tmp_path / "worker.log", "--log-level", "error", "--queues", " a, b,a ")
    try:
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(10) == 0
    finally:
        worker.kill()
    assert worker.log.read_text() == "worker w1 takes from a, b\n"


def test_a_queue_that_cannot_launch_is_refused_at_the_start(
    invoke: Invoke, no_worker_environ: Mapping[str, str]
) -> None:
    env = {**no_worker_environ, "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": ""}
    done = invoke("worker", "--queues", "default,gpu", env=env)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("ecs-queue: queue 'default': expected cluster to be set")


@pytest.mark.parametrize("checks_cluster", ["True", "False"])
def test_a_region_that_is_not_known_is_refused_at_the_start(
    invoke: Invoke, no_worker_environ: Mapping[str, str], checks_cluster: str
) -> None:
    env = {name: value for name, value in no_worker_environ.items() if "REGION" not in name}
    done = invoke("worker", env={**env, "AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": checks_cluster})
    assert done.exit_code == 2
    assert done.stderr.startswith("ecs-queue: No AWS Region is known")


def test_an_http_client_whose_package_is_not_installed_is_refused_at_the_start(
    invoke: Invoke, no_worker_environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycurl", None)
    monkeypatch.delitem(sys.modules, "ecs_queue.ecs.curl_client", raising=False)
    done = invoke("worker", env={**no_worker_environ, "AIRFLOW__ECS_QUEUE__HTTP_CLIENT": "curl"})
    assert done.exit_code == 2
    assert "pip install 'ecs-queue[curl]'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--queues", " , "], "--queues: expected names"),
        (["--queues", "a/b"], "--queues"),
        (["--name", "x\udcff"], "--name: expected 1 to 128 characters, none of them a control character"),
        (["--name", "a\nb"], "--name: "),
        (["--broker-url", "memory://"], "memory://"),
    ],
)
def test_invalid_options_of_a_worker_are_refused(
    invoke: Invoke, no_worker_environ: Mapping[str, str], arguments: list[str], words: str
) -> None:
    done = invoke("worker", *arguments, env=no_worker_environ)
    assert done.exit_code == 2
    assert words in done.stderr
