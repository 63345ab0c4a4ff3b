"""A file of commands in, exactly one correct result line for each command out, whatever is killed meanwhile."""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from ecs_queue.config import load_config
from ecs_queue.ledger import open_ledger
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, local_environment
from ecs_queue.local.redis_server import RedisServer
from tests.invariants import list_all_tasks
from tests.processes import CLI_COMMAND, QUICK_SETTINGS, merged_environ, read_json_lines, run_worker, write_json_lines
from tests.servers import run_rabbitmq
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(180)]

#: kind -> what its result line must say: state, exit code, attempts.
EXPECTED: dict[str, tuple[str, int | None, int]] = {
    "ok": ("SUCCESS", 0, 1),
    "exit3": ("FAILED", 3, 1),
    "missing": ("REMOVED", None, 3),
    "big": ("SUCCESS", 0, 1),
    "unicode": ("SUCCESS", 0, 1),
    "stopped": ("REVOKED", 143, 1),
}


def commands(number: int) -> list[dict[str, Any]]:
    """A mix of every kind; the ids say which."""
    environment_6k = [{"name": "BIG", "value": "x" * 6000}]
    tasks: list[dict[str, Any]] = []
    for position in range(number):
        kind = ("ok", "exit3", "ok", "unicode", "ok", "big", "ok", "missing", "ok", "ok")[position % 10]
        task: dict[str, Any] = {"id": f"{kind}-{position}"}
        if kind == "ok":
            task["command"] = ["true"]
        elif kind == "exit3":
            task["command"] = ["sh", "-c", "exit 3"]
        elif kind == "missing":
            task["command"] = ["/no/such/program"]
        elif kind == "big":
            task["command"] = ["sh", "-c", "test ${#BIG} -eq 6000"]
            task["executor_config"] = {"environment": environment_6k}
        else:
            task["command"] = ["sh", "-c", 'test "$1" = "grüße 世界 🚀"', "sh", "grüße 世界 🚀"]
        tasks.append(task)
    tasks[-1] = {"id": "stopped-0", "command": ["sleep", "60"]}
    return tasks


class SubmitProcess:
    """One `submit --file --wait --output` and what it must leave behind."""

    def __init__(self, environ: Mapping[str, str], folder: Path, tasks: list[dict[str, Any]]) -> None:
        self.environ = environ
        self.tasks = tasks
        self.output = folder / "results.jsonl"
        file = write_json_lines(folder / "tasks.jsonl", tasks)
        command = [*CLI_COMMAND, "submit", "--file", str(file), "--wait", "--output", str(self.output)]
        self.process = subprocess.Popen(command, env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def count_ended(self) -> int:
        return len(read_json_lines(self.output))

    def stop_sleeping_task(self) -> None:
        """As a user would, once it runs."""
        # The wait reads the ledger: commands one after the other would keep a processor busy beside the workers.
        with closing(open_ledger(load_config(environ=self.environ))) as ledger:

            def runs() -> bool:
                record = ledger.get(["stopped-0"])[0]
                # A container that has not started has no exit code to report.
                return record is not None and bool(record.started_at)

            wait_until(runs, "the sleeper runs", 60)
        shown = self.cli("tasks", "--state", "launched", "--json", "--limit", "1000")
        tasks = [json.loads(line) for line in shown.splitlines()]
        assert any(task["id"] == "stopped-0" and task["started_at"] for task in tasks)
        self.cli("stop", "stopped-0")

    def finish(self, ecs: LocalEcs) -> None:
        output = self.process.communicate(timeout=150)[0].decode()
        assert self.process.returncode == 1, output  # not all of them succeed
        lines = read_json_lines(self.output)
        assert sorted(line["id"] for line in lines) == sorted(task["id"] for task in self.tasks)
        for line in lines:
            found = (line["state"], line["exit_code"], line["attempts"])
            assert found == EXPECTED[line["id"].split("-")[0]], line
        launches = collections.Counter(task["startedBy"] for task in list_all_tasks(ecs.endpoint_url))
        assert [name for name, number in launches.items() if number > 1] == []

    def cli(self, *arguments: str) -> str:
        done = subprocess.run(
            [*CLI_COMMAND, *arguments], env=dict(self.environ), capture_output=True, timeout=30, check=True
        )
        return done.stdout.decode()


def test_two_workers_turn_two_hundred_commands_into_two_hundred_right_results(
    own_redis: RedisServer, ecs: LocalEcs, tmp_path: Path
) -> None:
    environ = merged_environ(QUICK_SETTINGS, local_environment(ecs.endpoint_url, own_redis.url))
    with run_worker(environ, tmp_path / "a.log"), run_worker(environ, tmp_path / "b.log"):
        run = SubmitProcess(environ, tmp_path, commands(200))
        run.stop_sleeping_task()
        run.finish(ecs)


def test_an_endpoint_that_never_raises_a_version_brings_two_hundred_right_results(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    """Tasks are slow enough to start that polls see them before they run, while they run, and ended."""
    options = LocalEcsOptions(constant_version=True, provision_seconds=(2.0, 2.0), shutdown_delay_seconds=1.0)
    with LocalEcs(options) as ecs:
        environ = merged_environ(QUICK_SETTINGS, local_environment(ecs.endpoint_url, own_redis.url))
        with run_worker(environ, tmp_path / "a.log"), run_worker(environ, tmp_path / "b.log"):
            run = SubmitProcess(environ, tmp_path, commands(200))
            run.stop_sleeping_task()
            run.finish(ecs)
        versions = {task["version"] for task in list_all_tasks(ecs.endpoint_url)}
    assert versions == {1}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_workers_killed_at_any_moment_change_nothing_in_the_results(
    own_redis: RedisServer, ecs: LocalEcs, tmp_path: Path, seed: int
) -> None:
    environ = merged_environ(QUICK_SETTINGS, local_environment(ecs.endpoint_url, own_redis.url))
    rng = random.Random(seed)
    tasks = commands(80)
    with ExitStack() as stack:
        workers = [stack.enter_context(run_worker(environ, tmp_path / f"{n}.log")) for n in range(2)]
        run = SubmitProcess(environ, tmp_path, tasks)
        for kill in range(3):
            after = rng.randrange(kill * 20, kill * 20 + 20)
            wait_until(lambda: run.count_ended() >= after, f"{after} results", 90)  # noqa: B023
            victim = workers.pop(rng.randrange(2))
            victim.kill()
            victim.wait()
            workers.append(stack.enter_context(run_worker(environ, tmp_path / f"again-{kill}.log")))
        run.stop_sleeping_task()
        run.finish(ecs)


@pytest.mark.parametrize("url", ["cluster_url", "sentinel_url"])
def test_in_a_cluster_and_behind_a_sentinel_two_hundred_results_are_right_although_a_worker_is_killed(
    ecs: LocalEcs, tmp_path: Path, request: pytest.FixtureRequest, url: str
) -> None:
    environ = merged_environ(QUICK_SETTINGS, local_environment(ecs.endpoint_url, request.getfixturevalue(url)))
    with run_worker(environ, tmp_path / "a.log") as victim, run_worker(environ, tmp_path / "b.log"):
        run = SubmitProcess(environ, tmp_path, commands(200))
        wait_until(lambda: run.count_ended() >= 20, "20 results", 60)
        victim.kill()
        victim.wait()
        run.stop_sleeping_task()
        run.finish(ecs)


def test_a_redis_that_is_killed_and_restarted_loses_and_doubles_nothing(
    own_redis: RedisServer, ecs: LocalEcs, tmp_path: Path
) -> None:
    environ = merged_environ(QUICK_SETTINGS, local_environment(ecs.endpoint_url, own_redis.url))
    with run_worker(environ, tmp_path / "a.log"), run_worker(environ, tmp_path / "b.log"):
        run = SubmitProcess(environ, tmp_path, commands(80))
        wait_until(lambda: run.count_ended() >= 10, "10 results", 60)
        own_redis.kill()
        own_redis.restart()
        run.stop_sleeping_task()
        run.finish(ecs)


def test_a_rolling_restart_under_load_gives_back_what_was_not_started(
    own_redis: RedisServer, ecs: LocalEcs, tmp_path: Path
) -> None:
    environ = merged_environ(QUICK_SETTINGS, local_environment(ecs.endpoint_url, own_redis.url))
    with ExitStack() as stack:
        workers = [stack.enter_context(run_worker(environ, tmp_path / f"{n}.log")) for n in range(2)]
        run = SubmitProcess(environ, tmp_path, commands(80))
        for number, old in enumerate(workers):
            wait_until(lambda: run.count_ended() >= 10 * (number + 1), "results", 60)  # noqa: B023
            stack.enter_context(run_worker(environ, tmp_path / f"new-{number}.log"))
            old.send_signal(signal.SIGTERM)
            assert old.wait(10) == 0
        run.stop_sleeping_task()
        run.finish(ecs)


@pytest.fixture(params=["amqp", "sqs"])
def broker_environ(request: pytest.FixtureRequest) -> dict[str, str]:
    """The broker in the environment of a process, and no sweep that would take the place of a message."""
    sweep = {"AIRFLOW__ECS_QUEUE__SWEEP_AFTER_SECONDS": "150"}
    if request.param == "amqp":
        return {**sweep, "AIRFLOW__ECS_QUEUE__BROKER_URL": request.getfixturevalue("rabbitmq_url")}
    endpoint = {"AWS_ENDPOINT_URL_SQS": request.getfixturevalue("moto_url")}
    return {**sweep, **endpoint, "AIRFLOW__ECS_QUEUE__BROKER_URL": "sqs://"}


def with_other_broker(ecs: LocalEcs, redis: RedisServer, broker: Mapping[str, str], name: str) -> dict[str, str]:
    own = {"AIRFLOW__ECS_QUEUE__LEDGER_URL": redis.url, "AIRFLOW__ECS_QUEUE__NAMESPACE": name}
    return merged_environ(QUICK_SETTINGS, local_environment(ecs.endpoint_url, redis.url), broker, own)


def test_with_another_broker_two_hundred_commands_end_right_although_a_worker_is_killed(
    own_redis: RedisServer, ecs: LocalEcs, tmp_path: Path, broker_environ: dict[str, str]
) -> None:
    environ = with_other_broker(ecs, own_redis, broker_environ, f"t{os.getpid()}")
    with run_worker(environ, tmp_path / "a.log") as victim, run_worker(environ, tmp_path / "b.log"):
        run = SubmitProcess(environ, tmp_path, commands(200))
        wait_until(lambda: run.count_ended() >= 20, "20 results", 60)
        victim.kill()
        victim.wait()
        run.stop_sleeping_task()
        run.finish(ecs)
        shown = [json.loads(line) for line in run.cli("status", "--json").splitlines()]
    assert [(line["queue"], line["backlog"], line["states"].get("SUCCESS")) for line in shown] == [("default", 0, 159)]


def test_a_rabbitmq_that_is_stopped_and_started_loses_and_doubles_nothing(
    own_redis: RedisServer, ecs: LocalEcs, tmp_path: Path
) -> None:
    with run_rabbitmq(tmp_path / "rabbitmq") as rabbitmq:
        environ = with_other_broker(ecs, own_redis, {"AIRFLOW__ECS_QUEUE__BROKER_URL": rabbitmq.url}, "restart")
        with run_worker(environ, tmp_path / "a.log"), run_worker(environ, tmp_path / "b.log"):
            run = SubmitProcess(environ, tmp_path, commands(50))
            wait_until(lambda: run.count_ended() >= 10, "10 results", 60)
            rabbitmq.stop()
            rabbitmq.start()
            run.stop_sleeping_task()
            run.finish(ecs)
    log = (tmp_path / "a.log").read_text()
    assert log.count("the broker failed") <= 3, log
