"""A chaos run on a warm queue: real runners, workers and the server are killed; commands count their own starts."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from ecs_queue.client.client import EcsQueue
from ecs_queue.client.handle import Handle
from ecs_queue.errors import LedgerUnavailable
from ecs_queue.local.ecs import FaultOptions, LocalEcs, LocalEcsOptions, Quota, local_environment
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.messages.result import TaskResult
from ecs_queue.runs.runner_options import URL_VARIABLE
from ecs_queue.server_keys import namespace_prefix
from tests.chaos.background_thread import BackgroundThread
from tests.chaos.killed_workers import KilledWorkers
from tests.chaos.options import AWS_BURST, AWS_RATE, LEASE_SECONDS, MAX_ATTEMPTS
from tests.processes import IMPORT_ROOT, merged_environ
from tests.replicated_servers import ValkeyCluster
from tests.servers import require_redis_binary, valkey_binary
from tests.wait import wait_until

#: What a command does: it appends to a file of its own when it starts, and when it ends by itself.
_SCRIPT = 'echo start >> "$1"; sleep "$2"; echo end >> "$1"; exit "$3"'
_POLICIES = ("never_started", "never_started", "interrupted", "any_failure")
_SUBMIT_BATCH = 200


@dataclass(frozen=True, kw_only=True)
class WarmChaosOptions:
    """A run. Times are seconds.

    Attributes:
        directory: Holds the server's data, the logs and the files of the commands.
        max_in_flight: How many requests, and so runners, at a time.
        kill_every: Between two kills of a worker.
        kill_runner_every: Between two kills of a runner.
        server_kills: How often the server is killed.
        provision_seconds: The shortest and the longest time until a container starts.
        durability: "server" or "aof" (appendfsync always), or "replica" on a cluster that fails over.
    """

    directory: Path
    tasks: int = 1000
    seed: int = 1
    workers: int = 3
    max_in_flight: int = 12
    kill_every: float = 5.0
    kill_runner_every: float = 1.5
    server_kills: int = 4
    provision_seconds: tuple[float, float] = (3.0, 8.0)
    durability: str = "server"

    @property
    def settings(self) -> dict[str, str]:
        """The settings of the workers and of the client."""
        keys = {
            "LEASE_SECONDS": str(LEASE_SECONDS),
            "SETTLE_SECONDS": "5",
            "VISIBILITY_TIMEOUT": "6",
            "RETRY_BASE_SECONDS": "0.2",
            "RETRY_CAP_SECONDS": "2",
            "CONCURRENCY": "8",
            "RUNNER_TTL": "3",
            "STOP_TIMEOUT": "2",
            "DURABILITY": self.durability,
        }
        profile = {
            "WARM_SECONDS": "10",
            "MAX_IN_FLIGHT": str(self.max_in_flight),
            "MAX_RUN_TASK_ATTEMPTS": str(MAX_ATTEMPTS),
        }
        settings = {f"AIRFLOW__ECS_QUEUE__{key}": value for key, value in keys.items()}
        return settings | {f"AIRFLOW__AWS_ECS_EXECUTOR__{key}": value for key, value in profile.items()}


@dataclass(frozen=True, kw_only=True)
class WarmChaosReport:
    """The outcome. What the commands wrote counts: `started_twice` were started more often than their policy allows."""

    requests: int
    results: Counter[str]
    lost: list[str]
    doubled: list[str]
    started_twice: list[str]
    untrue: list[str]
    starts: int
    tasks: int
    worker_kills: int
    runner_kills: int
    server_kills: int
    seconds: float

    @property
    def failures(self) -> list[str]:
        """Everything that must not happen."""
        return self.lost + self.doubled + self.started_twice + self.untrue

    def __str__(self) -> str:
        states = ", ".join(f"{number} {state}" for state, number in sorted(self.results.items()))
        return "\n".join(
            (
                f"requests          {self.requests}",
                f"results           {self.results.total()} ({states})",
                f"starts            {self.starts} of commands, in {self.tasks} ECS tasks",
                f"lost              {len(self.lost)}",
                f"doubled           {len(self.doubled)}",
                f"started twice     {len(self.started_twice)}",
                f"untrue ends       {len(self.untrue)}",
                f"runners killed    {self.runner_kills}",
                f"workers killed    {self.worker_kills}",
                f"server killed     {self.server_kills}",
                f"took              {self.seconds:.0f} s",
            )
        )


class WarmChaos:
    """A context with everything that a run needs."""

    def __init__(self, options: WarmChaosOptions, log: Callable[[str], None] = lambda line: None) -> None:
        self._options = options
        self._log = log
        self._rng = random.Random(options.seed)
        self._stack = ExitStack()
        self._policies: dict[str, str] = {}
        self._exit_codes: dict[str, int] = {}
        self._results: list[TaskResult] = []
        self._server_kills = 0

    def __enter__(self) -> Self:
        options = self._options
        logs, self._files = options.directory / "logs", options.directory / "commands"
        for folder in (logs, self._files):
            folder.mkdir(parents=True, exist_ok=True)
        self._server = _open_server(options)
        self._stack.enter_context(self._server)
        self._ecs = self._stack.enter_context(LocalEcs(_ecs_options(options, self._server.url)))
        environ = merged_environ(local_environment(self._ecs.endpoint_url, self._server.url), options.settings)
        self._queue = self._stack.enter_context(EcsQueue.from_config(environ=environ))
        self._workers = self._stack.enter_context(
            KilledWorkers(options.workers, environ, logs, random.Random(options.seed), options.kill_every)
        )
        self._runners = KilledRunners(random.Random(options.seed), options.kill_runner_every)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, timeout: float) -> WarmChaosReport:
        """Submit all requests, kill until all have ended, and report. Raises ResultTimeout after `timeout` seconds."""
        began = time.monotonic()
        lines = [self._make_task_line(number) for number in range(self._options.tasks)]
        handles: list[Handle] = []
        with self._runners:
            for start in range(0, len(lines), _SUBMIT_BATCH):
                handles += self._submit(lines[start : start + _SUBMIT_BATCH])
            self._collect(handles, timeout)
            self._workers.stop_killing()
        seconds = time.monotonic() - began
        wait_until(lambda: not self._count_running_tasks(), "every runner has left", 60)
        return self._report(handles, seconds)

    def _make_task_line(self, number: int) -> dict[str, Any]:
        name = f"r{number}"
        self._policies[name] = self._rng.choice(_POLICIES)
        code = self._exit_codes[name] = self._rng.choice((0, 0, 0, 3))
        seconds = self._rng.choice(("0", "0.05", "0.3", "2"))
        command = ["sh", "-c", _SCRIPT, "sh", str(self._files / name), seconds, str(code)]
        return {"id": name, "command": command, "relaunch": self._policies[name]}

    def _submit(self, lines: list[dict[str, Any]]) -> list[Handle]:
        deadline = time.monotonic() + 60
        while True:
            try:
                return list(self._queue.submit_many(lines))
            except LedgerUnavailable:
                if time.monotonic() > deadline:
                    raise

    def _collect(self, handles: list[Handle], timeout: float) -> None:
        """Wait for results. At certain numbers of results, kill the server."""
        kills = {
            (number + 1) * len(handles) // (self._options.server_kills + 1)
            for number in range(self._options.server_kills)
        }
        for result in self._queue.as_completed(handles, timeout):
            self._results.append(result)
            if len(self._results) in kills:
                self._kill_server()
            if len(self._results) % 100 == 0:
                self._log(f"{len(self._results)} results, {self._runners.kills} runners killed")

    def _kill_server(self) -> None:
        self._log("the server is killed")
        if isinstance(self._server, ValkeyCluster):
            killed = self._server.kill_owner(namespace_prefix(self._queue.config.namespace))
            self._server.wait_until_stable()
            killed.start()
            self._server.wait_until_stable()
        else:
            self._server.kill()
            self._server.start()
        self._server_kills += 1

    def _count_running_tasks(self) -> int:
        tasks: dict[str, int] = self._ecs.stats()["tasks"]
        return sum(number for status, number in tasks.items() if status != "STOPPED")

    def _report(self, handles: list[Handle], seconds: float) -> WarmChaosReport:
        words = {name: self._read_words(name) for name in self._policies}
        by_id = {result.id: result for result in self._results}
        numbers = Counter(result.id for result in self._results)
        return WarmChaosReport(
            requests=len(handles),
            results=Counter(result.state for result in self._results),
            lost=[f"{name} has no result" for name in self._policies if name not in by_id],
            doubled=[f"{name} has {number} results" for name, number in numbers.items() if number > 1],
            started_twice=[
                f"{result.id} ({self._policies[result.id]}) was started {words[result.id]['start']} times in "
                f"{result.attempts} attempts"
                for result in by_id.values()
                if words[result.id]["start"] > self._allowed_starts(result)
            ],
            untrue=[
                f"{result.id} ended {result.state}, {result.exit_code}, and has written {dict(words[result.id])}"
                for result in by_id.values()
                if not self._is_true(result, words[result.id])
            ],
            starts=sum(each["start"] for each in words.values()),
            tasks=sum(self._ecs.stats()["tasks"].values()),
            worker_kills=len(self._workers.kills),
            runner_kills=self._runners.kills,
            server_kills=self._server_kills,
            seconds=seconds,
        )

    def _read_words(self, name: str) -> Counter[str]:
        path = self._files / name
        return Counter(path.read_text().split() if path.exists() else ())

    def _allowed_starts(self, result: TaskResult) -> int:
        """A killed runner is no interruption: only `any_failure` starts a command again, once an attempt."""
        return result.attempts if self._policies[result.id] == "any_failure" else 1

    def _is_true(self, result: TaskResult, words: Counter[str]) -> bool:
        if result.state == "SUCCESS":
            return words["end"] > 0 and self._exit_codes[result.id] == 0
        if result.exit_code is not None:
            return result.exit_code == self._exit_codes[result.id] and words["end"] > 0
        if result.state == "REMOVED":  # its last attempt did not start
            return not words or self._policies[result.id] == "any_failure"
        return result.state == "FAILED"  # its runner was killed, and what the command did is not known


class KilledRunners(BackgroundThread):
    """A context that kills a runner of this process's local ECS with SIGKILL again and again, and counts."""

    def __init__(self, rng: random.Random, kill_every: float) -> None:
        super().__init__("runner-killer")
        self._rng = rng
        self._kill_every = kill_every
        self.kills = 0

    def pause_seconds(self) -> float:
        """See `BackgroundThread`."""
        return self._kill_every * self._rng.uniform(0.5, 1.5)

    def run_once(self) -> None:
        """Kill one of the runners, if there is any."""
        runners = list(filter(_is_runner, psutil.Process().children(recursive=True)))
        with suppress(psutil.NoSuchProcess):  # it has just left
            if runners:
                self._rng.choice(runners).kill()
                self.kills += 1


def _is_runner(process: psutil.Process) -> bool:
    try:
        return (process.cmdline() or [""])[-1] == "runner"
    except psutil.Error:
        return False  # it has ended


def _open_server(options: WarmChaosOptions) -> RedisServer | ValkeyCluster:
    if options.durability == "replica":
        return ValkeyCluster(valkey_binary())
    binary = valkey_binary() if options.durability == "aof" else require_redis_binary()  # Redis 7.0 has no WAITAOF
    return RedisServer(binary=binary, data_dir=options.directory / "redis", appendonly="always")


def _ecs_options(options: WarmChaosOptions, server_url: str) -> LocalEcsOptions:
    quota = Quota(rate=AWS_RATE, burst=AWS_BURST)
    return LocalEcsOptions(
        latency_seconds=0.02,
        run_task_quota=quota,
        describe_tasks_quota=quota,
        faults=FaultOptions(
            accept_then_drop=0.02, server_error=0.02, capacity=0.05, start_failure=0.05, seed=options.seed
        ),
        provision_seconds=options.provision_seconds,
        runner_environment={
            URL_VARIABLE: server_url,
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
            "PYTHONPATH": str(IMPORT_ROOT),
        },
    )
