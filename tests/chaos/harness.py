"""One chaos run: servers, workers, requests, kills, and the report."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from ecs_queue.client.client import EcsQueue
from ecs_queue.client.handle import Handle
from ecs_queue.errors import LedgerUnavailable
from ecs_queue.journal import open_journal
from ecs_queue.journal.jsonl import read_events, write_events
from ecs_queue.local.ecs import LocalEcs, TimerRunner, local_environment
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.messages.result import TaskResult
from ecs_queue.protocol.record import Record
from ecs_queue.replay.decisions import replay_decisions
from ecs_queue.server_keys import namespace_prefix
from tests.chaos.killed_workers import KilledWorkers
from tests.chaos.options import LEASE_SECONDS, MAX_ATTEMPTS, RECOVERY_GRACE_SECONDS, VISIBILITY_SECONDS, ChaosOptions
from tests.chaos.recovery import UnackedMessageWatcher, measure_launch_recoveries, measure_message_recoveries
from tests.chaos.scraper import Scraper
from tests.invariants import Task, find_violations, list_all_tasks
from tests.processes import merged_environ
from tests.replicated_servers import ValkeyCluster
from tests.servers import require_redis_binary, valkey_binary
from tests.wait import wait_until

T = TypeVar("T")

_SUBMIT_BATCH = 200
#: One request in this many is stopped.
_STOP_ONE_IN = 50


@dataclass(frozen=True)
class ChaosReport:
    """The outcome of a run. `violations` is empty if every invariant holds.

    `launch_recovery_seconds` has the seconds from a kill of a worker during a launch to the next event of the launch,
    `message_recovery_seconds` those from a kill while a message was unacknowledged until it could be taken again.
    """

    requests: int
    results: Counter[str]
    launches: int
    duplicates: int
    lost: int
    worker_kills: int
    server_kills: int
    launch_recovery_seconds: list[float]
    message_recovery_seconds: list[float]
    faults: dict[str, int]
    throttled: int
    seconds: float
    decisions: int
    scrapes: int
    violations: list[str]

    @property
    def longest_recovery_seconds(self) -> float:
        """The longest recovery of a launch or message."""
        return max((*self.launch_recovery_seconds, *self.message_recovery_seconds), default=0.0)

    @property
    def failures(self) -> list[str]:
        """Lost results, violations and too long recoveries."""
        bound = max(LEASE_SECONDS, VISIBILITY_SECONDS) + RECOVERY_GRACE_SECONDS
        slow = [
            f"work of a killed worker waited {self.longest_recovery_seconds:.1f} s, at most {bound:g} s are allowed"
        ]
        lost = [f"{self.lost} results are lost"] if self.lost else []
        return lost + self.violations + (slow if self.longest_recovery_seconds > bound else [])

    def __str__(self) -> str:
        states = ", ".join(f"{number} {state}" for state, number in sorted(self.results.items()))
        faults = ", ".join(f"{number} {kind}" for kind, number in sorted(self.faults.items()))
        return "\n".join(
            (
                f"requests          {self.requests}",
                f"results           {self.results.total()} ({states})",
                f"launches          {self.launches} ECS tasks",
                f"duplicates        {self.duplicates}",
                f"lost              {self.lost}",
                f"workers killed    {self.worker_kills}",
                f"server killed     {self.server_kills}",
                f"faults of ECS     {faults}, {self.throttled} throttled",
                f"longest recovery  {_format_longest(self.launch_recovery_seconds)} launches",
                f"                  {_format_longest(self.message_recovery_seconds)} messages",
                f"journal           {self.decisions} decisions, replayed offline",
                f"scrapes           {self.scrapes} of workers' metrics, each adds up",
                f"took              {self.seconds:.0f} s",
            )
        )


class ChaosHarness:
    """A context with everything a run needs. After `run` the servers and their data stay until it is closed."""

    def __init__(self, options: ChaosOptions, log: Callable[[str], None] = lambda line: None) -> None:
        self._options = options
        self._log = log
        self._rng = random.Random(options.seed)
        self._stack = ExitStack()
        self._server_restarts: list[float] = []
        self._stopped: list[str] = []
        self.environ: dict[str, str] = {}
        self.journal_file = options.directory / "journal.jsonl"

    def __enter__(self) -> Self:
        options = self._options
        self._logs = options.directory / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._server = _open_server(options)
        self._stack.enter_context(self._server)
        self._ecs = self._stack.enter_context(LocalEcs(options.ecs, TimerRunner()))
        exports = {**local_environment(self._ecs.endpoint_url, self._server.url), **options.settings}
        self.environ = merged_environ(exports)
        lines = [f"export {name}='{value}'\n" for name, value in sorted(exports.items())]
        (options.directory / "environment").write_text("".join(lines))
        self._queue = self._stack.enter_context(EcsQueue.from_config(environ=self.environ))
        watcher = UnackedMessageWatcher(self._server.url, self._queue.config.namespace)
        self._message_watcher = self._stack.enter_context(watcher)
        self._workers = self._stack.enter_context(
            KilledWorkers(options.workers, self.environ, self._logs, self._rng, options.kill_every)
        )
        self._scraper = Scraper(self._workers.metrics_ports)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, timeout: float) -> ChaosReport:
        """Submit all requests, kill until all have ended, and report. Raises ResultTimeout after `timeout` seconds."""
        started_at = time.monotonic()
        with self._scraper:
            handles = self._submit()
            results = self._collect(handles, timeout)
            self._workers.stop_killing()
        return self._report(handles, results, time.monotonic() - started_at)

    def _submit(self) -> list[Handle]:
        lines = [self._make_task_line(number) for number in range(self._options.tasks)]
        handles: list[Handle] = []
        for start in range(0, len(lines), _SUBMIT_BATCH):
            batch = lines[start : start + _SUBMIT_BATCH]
            handles += self._retry(lambda: self._queue.submit_many(batch))  # noqa: B023
        return handles

    def _make_task_line(self, number: int) -> dict[str, Any]:
        command = self._rng.choice((["true"], ["exit", "3"], ["sleep", "0.5"], ["sleep", "2"]))
        return {"id": f"r{number}", "command": command}

    def _collect(self, handles: list[Handle], timeout: float) -> list[TaskResult]:
        """Wait for results. At certain numbers of results kill the server, at another stop some requests."""
        results: list[TaskResult] = []
        kills = {
            (number + 1) * len(handles) // (self._options.server_kills + 1)
            for number in range(self._options.server_kills)
        }
        for result in self._queue.as_completed(handles, timeout):
            results.append(result)
            if len(results) in kills:
                self._kill_server()
            if len(results) == len(handles) // 10:
                self._stop_some(handles)
            if len(results) % 100 == 0:
                self._log(f"{len(results)} results, {len(self._workers.kills)} workers killed")
        return results

    def _kill_server(self) -> None:
        self._log("the server is killed")
        if isinstance(self._server, ValkeyCluster):
            killed = self._server.kill_owner(namespace_prefix(self._queue.config.namespace))
            self._server.wait_until_stable()
            self._log("a replica has taken over")
            killed.start()
            self._server.wait_until_stable()
        else:
            self._server.kill()
            self._server.start()
        self._server_restarts.append(time.time())

    def _stop_some(self, handles: list[Handle]) -> None:
        chosen = self._rng.sample(handles, max(1, len(handles) // _STOP_ONE_IN))
        self._stopped = [handle.id for handle in chosen]
        self._retry(lambda: self._queue.stop_many(self._stopped, by="chaos"))

    def _retry(self, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + 30
        while True:
            try:
                return call()
            except LedgerUnavailable:
                if time.monotonic() > deadline:
                    raise

    def _report(self, handles: list[Handle], results: list[TaskResult], seconds: float) -> ChaosReport:
        records = [record for record in self._queue.ledger.get([handle.id for handle in handles]) if record]
        # An unwanted task may still be stopping.
        wait_until(lambda: not self._count_running_tasks(), "every ECS task has stopped", 60)
        tasks = list_all_tasks(self._ecs.endpoint_url)
        violations = find_violations(self._queue.config.namespace, records, tasks, MAX_ATTEMPTS)
        violations += _mismatched_results(records, results)
        ended = Counter(result.state for result in results)
        wait_until(lambda: self._scraper.read_ended() == ended, "a worker shows how all requests ended", 30)
        violations += self._scraper.violations
        replayed = replay_decisions(read_events(self._export(), self._log))
        if replayed.difference is not None:
            violations.append(f"the journal is decided differently offline: {replayed.difference}")
        ended_at = {record.id: record.finished_at for record in records if record.finished_at}
        launches = measure_launch_recoveries(
            self._workers.log_files(), self._workers.kills, self._stopped, self._server_restarts, ended_at
        )
        stats = self._ecs.stats()
        return ChaosReport(
            requests=len(handles),
            results=Counter(result.state for result in results),
            launches=len(tasks),
            duplicates=_duplicates(tasks) + len(results) - len({result.id for result in results}),
            lost=len(handles) - len({result.id for result in results}),
            worker_kills=len(self._workers.kills),
            server_kills=len(self._server_restarts),
            launch_recovery_seconds=launches,
            message_recovery_seconds=measure_message_recoveries(
                self._message_watcher.unacked_intervals, self._workers.kills, self._server_restarts
            ),
            faults=stats["faults"],
            throttled=sum(stats["throttled"].values()),
            seconds=seconds,
            decisions=replayed.decision_count,
            scrapes=self._scraper.scrapes,
            violations=violations,
        )

    def _export(self) -> Path:
        """Write the journal of the whole run, as `journal export` does."""
        journal = open_journal(self._queue.config)
        try:
            with self.journal_file.open("wb") as sink:
                write_events(journal.all_events(), sink)
        finally:
            journal.close()
        return self.journal_file

    def _count_running_tasks(self) -> int:
        tasks: dict[str, int] = self._ecs.stats()["tasks"]
        return sum(number for status, number in tasks.items() if status != "STOPPED")


def _open_server(options: ChaosOptions) -> RedisServer | ValkeyCluster:
    """Return the server, or a cluster whose nodes keep their data in directories of their own."""
    if options.cluster:
        return ValkeyCluster(valkey_binary())
    return RedisServer(binary=require_redis_binary(), data_dir=options.directory / "redis", appendonly="always")


def _format_longest(seconds: list[float]) -> str:
    return f"{max(seconds, default=0.0):.1f} s of {len(seconds)}"


def _duplicates(tasks: list[Task]) -> int:
    """Count the ECS tasks beyond the first of each launch number."""
    return sum(number - 1 for number in Counter(task["startedBy"] for task in tasks).values())


def _mismatched_results(records: list[Record], results: list[TaskResult]) -> list[str]:
    """Describe the results that differ from the ledger."""
    returned = {result.id: (result.state, result.attempts, result.exit_code) for result in results}
    return [
        f"{record.id} ended {record.state} after {record.attempts} attempts, its owner got {returned.get(record.id)}"
        for record in records
        if returned.get(record.id) != (record.state.value, record.attempts, record.exit_code)
    ]
