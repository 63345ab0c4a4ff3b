"""One run: servers, a fleet, requests, kills, and at the end what there is to be seen of it."""

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

from ecs_queue.client import EcsQueue, Handle
from ecs_queue.core.envelope import TaskResult
from ecs_queue.core.record import Record
from ecs_queue.errors import LedgerUnavailable
from ecs_queue.journal import open_journal
from ecs_queue.journal.export import read_events, write_events
from ecs_queue.journal.offline import replay
from ecs_queue.local.ecs import LocalEcs, TimerRunner, local_environment
from ecs_queue.local.redis_server import RedisServer
from tests.chaos.fleet import Fleet
from tests.chaos.options import GRACE, LEASE, MAX_ATTEMPTS, VISIBILITY, ChaosOptions
from tests.chaos.recovery import MessageWatch, launch_recoveries, message_recoveries
from tests.evidence import Task, all_tasks, violations
from tests.services import require_redis_binary
from tests.system.processes import environment, wait_for

T = TypeVar("T")

_SUBMITTED_AT_ONCE = 200
#: One of so many requests is stopped on its way.
_ONE_STOPPED_OF = 50


@dataclass(frozen=True)
class Report:
    """`violations`: of the invariants, none if all is well.

    `launches_recovered`: seconds from the kill of a worker that was making a launch to the next sign of it;
    `messages_recovered`: seconds from a kill while a message was in hand until anybody could take it again.
    """

    requests: int
    results: Counter[str]
    launches: int
    duplicates: int
    lost: int
    worker_kills: int
    server_kills: int
    launches_recovered: list[float]
    messages_recovered: list[float]
    faults: dict[str, int]
    throttled: int
    seconds: float
    decisions: int
    violations: list[str]

    @property
    def longest_recovery(self) -> float:
        """Seconds."""
        return max((*self.launches_recovered, *self.messages_recovered), default=0.0)

    @property
    def failures(self) -> list[str]:
        """What must not be."""
        bound = max(LEASE, VISIBILITY) + GRACE
        slow = [f"what a killed worker held waited {self.longest_recovery:.1f} s, at most {bound:g} s are allowed"]
        lost = [f"{self.lost} results are lost"] if self.lost else []
        return lost + self.violations + (slow if self.longest_recovery > bound else [])

    def __str__(self) -> str:
        ends = ", ".join(f"{number} {state}" for state, number in sorted(self.results.items()))
        faults = ", ".join(f"{number} {kind}" for kind, number in sorted(self.faults.items()))
        return "\n".join(
            (
                f"requests          {self.requests}",
                f"results           {self.results.total()} ({ends})",
                f"launches          {self.launches} ECS tasks",
                f"duplicates        {self.duplicates}",
                f"lost              {self.lost}",
                f"workers killed    {self.worker_kills}",
                f"server killed     {self.server_kills}",
                f"faults of ECS     {faults}, {self.throttled} throttled",
                f"longest recovery  {_longest(self.launches_recovered)} launches",
                f"                  {_longest(self.messages_recovered)} messages",
                f"journal           {self.decisions} decisions, decided again offline",
                f"took              {self.seconds:.0f} s",
            )
        )


class Chaos:
    """Use it as a context; after `run` everything is still there to be looked at, until the end of it."""

    def __init__(self, options: ChaosOptions, told: Callable[[str], None] = lambda line: None) -> None:
        self._options = options
        self._told = told
        self._rng = random.Random(options.seed)
        self._stack = ExitStack()
        self._server_back: list[float] = []
        self._stopped: list[str] = []
        self.environ: dict[str, str] = {}
        self.journal_file = options.directory / "journal.jsonl"

    def __enter__(self) -> Self:
        options = self._options
        self._logs = options.directory / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        binary = require_redis_binary()
        self._server = RedisServer(binary=binary, data_dir=options.directory / "redis", appendonly="always")
        self._stack.enter_context(self._server)
        self._ecs = self._stack.enter_context(LocalEcs(options.ecs, TimerRunner()))
        exports = {**local_environment(self._ecs.endpoint_url, self._server.url), **options.settings}
        self.environ = environment(exports)
        lines = [f"export {name}='{value}'\n" for name, value in sorted(exports.items())]
        (options.directory / "environment").write_text("".join(lines))
        self._queue = self._stack.enter_context(EcsQueue.from_config(environ=self.environ))
        watch = MessageWatch(self._server.url, self._queue.config.namespace)
        self._messages = self._stack.enter_context(watch)
        self._fleet = self._stack.enter_context(
            Fleet(options.workers, self.environ, self._logs, self._rng, options.kill_every)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, timeout: float) -> Report:
        """Submit everything, kill until all have ended, and look. ResultTimeout: not within `timeout` seconds."""
        begun = time.monotonic()
        handles = self._submit()
        results = self._collect(handles, timeout)
        self._fleet.spare()
        return self._report(handles, results, time.monotonic() - begun)

    def _submit(self) -> list[Handle]:
        lines = [self._line(number) for number in range(self._options.tasks)]
        handles: list[Handle] = []
        for start in range(0, len(lines), _SUBMITTED_AT_ONCE):
            some = lines[start : start + _SUBMITTED_AT_ONCE]
            handles += self._again(lambda: self._queue.submit_many(some))  # noqa: B023
        return handles

    def _line(self, number: int) -> dict[str, Any]:
        command = self._rng.choice((["true"], ["exit", "3"], ["sleep", "0.5"], ["sleep", "2"]))
        return {"id": f"r{number}", "command": command}

    def _collect(self, handles: list[Handle], timeout: float) -> list[TaskResult]:
        """Wait; the server is killed at some numbers of results, requests are stopped at another."""
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
                self._told(f"{len(results)} results, {len(self._fleet.kills)} workers killed")
        return results

    def _kill_server(self) -> None:
        self._told("the server is killed")
        self._server.kill()
        self._server.start()
        self._server_back.append(time.time())

    def _stop_some(self, handles: list[Handle]) -> None:
        chosen = self._rng.sample(handles, max(1, len(handles) // _ONE_STOPPED_OF))
        self._stopped = [handle.id for handle in chosen]
        self._again(lambda: self._queue.stop_many(self._stopped, by="chaos"))

    def _again(self, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + 30
        while True:
            try:
                return call()
            except LedgerUnavailable:
                if time.monotonic() > deadline:
                    raise

    def _report(self, handles: list[Handle], results: list[TaskResult], seconds: float) -> Report:
        records = [record for record in self._queue.ledger.get([handle.id for handle in handles]) if record]
        # A task that nobody wants any more may still be on its way to its end.
        wait_for(lambda: not self._alive(), 60, "every ECS task has stopped")
        tasks = all_tasks(self._ecs.endpoint_url)
        found = violations(self._queue.config.namespace, records, tasks, MAX_ATTEMPTS)
        found += _told_otherwise(records, results)
        decided = replay(read_events(self._export(), self._told))
        if decided.difference is not None:
            found.append(f"the journal is not decided alike offline: {decided.difference}")
        back = self._server_back
        launches = launch_recoveries(self._fleet.logs(), self._fleet.kills, self._stopped, back)
        stats = self._ecs.stats()
        return Report(
            requests=len(handles),
            results=Counter(result.state for result in results),
            launches=len(tasks),
            duplicates=_duplicates(tasks) + len(results) - len({result.id for result in results}),
            lost=len(handles) - len({result.id for result in results}),
            worker_kills=len(self._fleet.kills),
            server_kills=len(back),
            launches_recovered=launches,
            messages_recovered=message_recoveries(self._messages.stays, self._fleet.kills, back),
            faults=stats["faults"],
            throttled=sum(stats["throttled"].values()),
            seconds=seconds,
            decisions=decided.compared,
            violations=found,
        )

    def _export(self) -> Path:
        """The journal of the whole run, as `journal export` writes it."""
        journal = open_journal(self._queue.config)
        try:
            with self.journal_file.open("wb") as sink:
                write_events(journal.all(), sink)
        finally:
            journal.close()
        return self.journal_file

    def _alive(self) -> int:
        tasks: dict[str, int] = self._ecs.stats()["tasks"]
        return sum(number for status, number in tasks.items() if status != "STOPPED")


def _longest(seconds: list[float]) -> str:
    return f"{max(seconds, default=0.0):.1f} s of {len(seconds)}"


def _duplicates(tasks: list[Task]) -> int:
    """ECS tasks beyond the first of a launch number."""
    return sum(number - 1 for number in Counter(task["startedBy"] for task in tasks).values())


def _told_otherwise(records: list[Record], results: list[TaskResult]) -> list[str]:
    """Results that are not what the ledger says."""
    told = {result.id: (result.state, result.attempts, result.exit_code) for result in results}
    return [
        f"{record.id} ended {record.state} after {record.attempts} attempts, its owner was told {told.get(record.id)}"
        for record in records
        if told.get(record.id) != (record.state.value, record.attempts, record.exit_code)
    ]
