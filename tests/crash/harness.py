"""One namespace with its own local ECS, real worker and client processes, and a client in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import redis

from ecs_queue import crash_points
from ecs_queue.broker import open_broker
from ecs_queue.broker.base import RequestMessage
from ecs_queue.client.client import EcsQueue
from ecs_queue.client.handle import Handle
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, TimerRunner, local_environment
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.runs.runner_options import URL_VARIABLE
from ecs_queue.server_keys import namespace_prefix
from tests.invariants import find_violations, list_all_tasks
from tests.processes import CLI_COMMAND, merged_environ, read_json_lines, write_json_lines
from tests.wait import wait_until

TaskLine = dict[str, Any]

#: The most seconds that a step of a scenario may take on a busy machine.
TIMEOUT_SECONDS = 40.0
MAX_ATTEMPTS = 3
LEASE_SECONDS, SETTLE_SECONDS = 2.0, 1.5
_QUICK_SETTINGS = {
    "LEASE_SECONDS": str(LEASE_SECONDS),
    "SETTLE_SECONDS": str(SETTLE_SECONDS),
    "SWEEP_AFTER_SECONDS": "1",
    "VISIBILITY_TIMEOUT": "2",
    "RETRY_BASE_SECONDS": "0.1",
    "RETRY_CAP_SECONDS": "0.5",
    "RUN_TASK_RATE": "0",
    "DESCRIBE_TASKS_RATE": "0",
}


class CrashHarness:
    """A context for one scenario. It ends every process that it started."""

    def __init__(self, redis_url: str, folder: Path, ecs: LocalEcsOptions, settings: Mapping[str, str]) -> None:
        """`settings` are keys of [ecs_queue] besides those that make the test quick."""
        self.folder = folder
        self.namespace = f"crash{uuid.uuid4().hex[:10]}"
        self._redis_url = redis_url
        self._settings = {**_QUICK_SETTINGS, **settings}
        self._ecs = self._make_ecs(ecs)
        self._stack = ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.handles: list[Handle] = []
        self._published: dict[str, str] = {}  # id -> nonce

    @property
    def _is_warm(self) -> bool:
        return any("WARM_SECONDS" in key for key in self._settings)

    def _make_ecs(self, options: LocalEcsOptions) -> LocalEcs:
        """Tasks are timers, or in a warm pool processes, since a runner speaks to the ledger."""
        if not self._is_warm:
            return LocalEcs(options, TimerRunner(0.2))
        path = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)))
        return LocalEcs(replace(options, runner_environment={"PATH": path, URL_VARIABLE: self._redis_url}))

    def __enter__(self) -> Self:
        self._stack.enter_context(self._ecs)
        settings = _named(self._settings)
        settings["AIRFLOW__ECS_QUEUE__NAMESPACE"] = self.namespace
        settings["AIRFLOW__AWS_ECS_EXECUTOR__MAX_RUN_TASK_ATTEMPTS"] = str(MAX_ATTEMPTS)
        self._environ = merged_environ(local_environment(self._ecs.endpoint_url, self._redis_url), settings)
        self.queue = self._stack.enter_context(EcsQueue.from_config(environ=self._environ, owner="here"))
        self._broker = self._stack.enter_context(closing(open_broker(self.queue.config)))
        self.redis = self._stack.enter_context(closing(redis.Redis.from_url(self._redis_url)))
        self._stack.callback(self._end_processes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def endpoint_url(self) -> str:
        """The URL of the local ECS."""
        return self._ecs.endpoint_url

    # The steps of scenarios.

    def submit(self, *lines: TaskLine) -> None:
        """Submit, as any client does, and expect the results."""
        self.handles += self.queue.submit_many(lines)

    def submit_without_messages(self, *lines: TaskLine) -> None:
        """Put requests into the ledger, as by a client that died before it published their messages."""
        prepared_requests = [self.queue.prepare(line) for line in lines]
        self.queue.ledger.put([prepared.submission for prepared in prepared_requests])
        self.handles += [self.queue.handle(prepared.request.id) for prepared in prepared_requests]

    def publish(self, body: bytes) -> None:
        """Publish a message."""
        self._broker.publish_requests([RequestMessage("default", body)])

    def expect_result(self, record_id: str, nonce: str) -> None:
        """Expect the result of a published message."""
        self._published[record_id] = nonce

    def start_worker(self, armed: str = "", settings: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a worker process that is armed for these crash points."""
        return self._start([*CLI_COMMAND, "worker"], armed, settings or {})

    def start_client(self, lines: Sequence[TaskLine], *arguments: str, armed: str = "") -> subprocess.Popen[bytes]:
        """Start a client process that submits the lines. `client_runs` returns the results it got."""
        tasks = write_json_lines(self.folder / "tasks.jsonl", list(lines))
        command = [
            sys.executable,
            "-m",
            "tests.crash.client_process",
            str(tasks),
            str(self._client_results_path),
            *arguments,
        ]
        return self._start(command, armed, {})

    def start_process(self, command: Sequence[str], armed: str = "") -> subprocess.Popen[bytes]:
        """Start another process that is armed for these crash points."""
        return self._start(command, armed, {})

    def wait_for_success(self, process: subprocess.Popen[bytes], timeout: float = TIMEOUT_SECONDS) -> None:
        """Wait until the process exits with status 0."""
        try:
            code: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        assert code == 0, f"it exited with {code}:\n{self._log}"

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the process with SIGKILL and wait for its end."""
        process.kill()
        process.wait()

    def wait_for_crash(self, process: subprocess.Popen[bytes], point: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """Wait until the process dies at its crash point."""
        try:
            code: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        assert code == crash_points.EXIT_CODE, f"{point} was not reached ({code}):\n{self._log}"

    def wait_for_pause(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the process pauses at its crash point."""
        wait_until(
            lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "the process pauses", TIMEOUT_SECONDS
        )

    def wait_for_state(self, record_id: str, *states: State) -> Record:
        """Wait until the record is in one of the states."""
        wait_until(lambda: self.record(record_id).state in states, f"{record_id} is {states}", TIMEOUT_SECONDS)
        return self.record(record_id)

    def record(self, record_id: str) -> Record:
        """Return the record."""
        record = self.queue.ledger.get([record_id])[0]
        assert record is not None
        return record

    def wait_for_empty_queue(self) -> None:
        """Wait until no message waits in the queue."""
        wait_until(lambda: self._broker.backlog("default") == 0, "the queue is empty", TIMEOUT_SECONDS)

    def wait_for_waiting_launch(self) -> None:
        """Wait until a worker's heartbeat shows a launch that waits for a limit."""
        wait_until(
            lambda: any(w.launches_waiting for w in self.queue.ledger.list_workers()),
            "a launch waits",
            TIMEOUT_SECONDS,
        )

    def delete_all_keys(self) -> None:
        """Lose all data, as in a fail-over to an empty replica."""
        self.redis.delete(*self.redis.keys(f"{namespace_prefix(self.namespace)}*"))

    # The invariants.

    def finish(self) -> dict[str, tuple[str, int]]:
        """Let another worker finish everything. Return each id's state and attempts as in its result."""
        self.start_worker()
        for record_id, nonce in self._published.items():
            wait_until(partial(self._is_known, record_id), f"{record_id} has a record", TIMEOUT_SECONDS)
            self.handles.append(self.queue.handle(record_id))
            assert self.handles[-1].nonce == nonce
        results = list(self.queue.as_completed(self.handles, timeout=TIMEOUT_SECONDS))
        outcomes = {result.id: (result.state, result.attempts) for result in results}
        assert len(results) == len(outcomes) == len(self.handles)
        self.check_invariants(outcomes)
        return outcomes

    def _is_known(self, record_id: str) -> bool:
        return self.queue.ledger.get([record_id])[0] is not None

    def check_invariants(self, results: Mapping[str, tuple[str, int]]) -> None:
        """Check the invariants; every result must be the record's and count as delivered."""
        records = [record for record in self.queue.ledger.get(list(results)) if record is not None]
        if self._is_warm:
            wait_until(self._have_tasks_stopped, "the runners have left", TIMEOUT_SECONDS)
        tasks = list_all_tasks(self.endpoint_url)
        assert find_violations(self.namespace, records, tasks, MAX_ATTEMPTS) == []
        assert {record.id: (record.state.value, record.attempts) for record in records} == results
        assert [record.id for record in records if record.undelivered] == []

    def _have_tasks_stopped(self) -> bool:
        return all(task["lastStatus"] == "STOPPED" for task in list_all_tasks(self.endpoint_url))

    def client_runs(self) -> list[list[TaskLine]]:
        """Return the results that each client process got, in order."""
        runs: list[list[TaskLine]] = []
        for line in read_json_lines(self._client_results_path):
            if "begins" in line:
                runs.append([])
            else:
                runs[-1].append(line)
        return runs

    @property
    def _client_results_path(self) -> Path:
        return self.folder / "results.jsonl"

    @property
    def _log(self) -> str:
        return (self.folder / "processes.log").read_text(errors="replace")[-4000:]

    def _start(self, command: Sequence[str], armed: str, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
        environ = {**self._environ, **_named(settings)}
        if armed:
            environ[crash_points.ENVIRONMENT_VARIABLE] = armed
        with (self.folder / "processes.log").open("ab") as log:
            process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        self._processes.append(process)
        return process

    def _end_processes(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


def _named(settings: Mapping[str, str]) -> dict[str, str]:
    """The variables of keys of [ecs_queue]; those of other sections have their whole names."""
    return {key if "__" in key else f"AIRFLOW__ECS_QUEUE__{key}": value for key, value in settings.items()}
