"""Runs in the in-memory ledger."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from ecs_queue.ledger.memory_coordination import MemoryCoordination
from ecs_queue.protocol import assignments, runs
from ecs_queue.protocol.operations import ClaimRequest, ResultCode, RunnerTask
from ecs_queue.protocol.record import Record, build_client_token
from ecs_queue.protocol.runs import (
    CLOSED_AS_SILENT,
    CLOSED_BY_DRAIN,
    CLOSED_BY_ECS,
    CLOSED_BY_RUNNER,
    Run,
    RunEnd,
    RunPhase,
)
from ecs_queue.protocol.settings import IDLE_RUN_SECONDS, MAX_IDLE_LOOKED_AT, ProtocolSettings
from ecs_queue.protocol.states import State


class MemoryRuns(MemoryCoordination):
    """`RunnerOperations` and the role `WarmPools`. Thread-safe."""

    _settings: ProtocolSettings
    _records: dict[str, Record]

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._runs: dict[str, Run] = {}
        self._idle_since: dict[str, tuple[float, str]] = {}  # name -> since when it is idle, and its pool
        self._changed_runs: dict[str, float] = {}  # name of a run that has changed -> when
        self._wakes: Counter[str] = Counter()
        self._signalled = threading.Condition(self._lock)

    def next_turn(self, name: str, boot: str, arn: str, end: RunEnd | None) -> runs.Turn | runs.NoTurn:
        """See `RunnerOperations.next_turn`."""
        with self._lock:
            answer, has_changed = runs.next_turn(self._find_run(name), boot, arn, end, self.now())
            self._note_change(name, has_changed)
            return answer

    def beat(self, name: str, boot: str, turn: int) -> bool:
        """See `RunnerOperations.beat`."""
        with self._lock:
            return runs.beat(self._find_run(name), boot, turn, self.now())

    def leave(self, name: str, boot: str, arn: str, end: RunEnd | None) -> bool:
        """See `RunnerOperations.leave`."""
        with self._lock:
            may_exit, has_changed = runs.leave(self._find_run(name), boot, arn, end, self.now())
            self._note_change(name, has_changed)
            return may_exit

    def wait_for_turn(
        self, name: str, boot: str, arn: str, end: RunEnd | None, seconds: float
    ) -> runs.Turn | runs.NoTurn:
        """See `RunnerOperations.wait_for_turn`."""
        self.wait_for_wake(name, seconds)
        return self.next_turn(name, boot, arn, end)

    def wait_for_wake(self, name: str, seconds: float) -> None:
        """See `RunnerOperations.wait_for_wake`."""
        with self._signalled:
            if self._signalled.wait_for(lambda: self._wakes[name], seconds):
                self._wakes[name] = 0

    def read_runs(self, names: Sequence[str]) -> list[Run | None]:
        """See `WarmPools.read_runs`."""
        with self._lock:
            return [run and _without_payload(run) for run in map(self._find_run, names)]

    def list_runs(self, limit: int | None = None) -> list[Run]:
        """See `WarmPools.list_runs`."""
        return [run for run in self.read_runs(sorted(self._runs)[:limit]) if run is not None]

    def pop_changed_runs(self, seconds: float, limit: int) -> list[Run]:
        """See `WarmPools.pop_changed_runs`."""
        with self._signalled:
            self._signalled.wait_for(lambda: self._changed_runs, seconds)
            names = sorted(self._changed_runs, key=lambda name: (self._changed_runs[name], name))[:limit]
            for name in names:
                del self._changed_runs[name]
            return [run for run in self.read_runs(names) if run is not None]

    def may_stop(self, tasks: Sequence[RunnerTask]) -> list[bool]:
        """See `WarmPools.may_stop`."""
        with self._lock:
            return [runs.may_stop_task(self._find_run(task.name), task.arn) for task in tasks]

    def close_silent(self, offset: int, limit: int) -> tuple[list[Run], int]:
        """See `WarmPools.close_silent`."""
        with self._lock:
            names = sorted(self._runs, key=lambda name: (self._runs[name].born_at, name))[offset : offset + limit]
            next_offset = offset + len(names) if len(names) == limit else -1
            silent = []
            for name in names:
                run = self._tend_runner(name)
                if run is None:
                    next_offset -= next_offset > 0
                elif run.phase is RunPhase.IDLE and self._is_silent(run):
                    run.closed = run.closed or CLOSED_AS_SILENT
                    silent += [run] if run.closed not in (CLOSED_BY_RUNNER, CLOSED_BY_ECS) else []
            return [_without_payload(run) for run in silent], next_offset

    def _tend_runner(self, name: str) -> Run | None:
        """Void the run of a silent runner whose record was deleted, and let claims find an idle one that calls again.

        No operation on a deleted record takes the assignment out of its run; and a claim drops an idle run while its
        runner cannot reach the server.
        """
        run = self._find_run(name)
        if run is not None and run.phase is not RunPhase.IDLE and self._is_silent(run) and run.id not in self._records:
            if assignments.void(run, "", self.now()):
                del self._runs[name]
                return None
        elif run is not None and runs.is_free(run, self.now(), self._settings.runner_ttl):
            self._idle_since.setdefault(name, (self.now(), run.pool))
        return run

    def _is_silent(self, run: Run) -> bool:
        return self.now() - max(run.seen_at, run.assigned_at) >= self._settings.runner_lost_seconds

    def forget_runner(self, name: str) -> None:
        """See `WarmPools.forget_runner`."""
        with self._lock:
            run = self._find_run(name)
            if run is not None and run.closed and run.phase is RunPhase.IDLE:
                del self._runs[name]

    def drain_runs(self, names: Sequence[str]) -> int:
        """See `WarmPools.drain_runs`."""
        with self._lock:
            found = [run for run in map(self._find_run, names) if run is not None and not run.closed]
            closed = [run for run in found if run.phase is not RunPhase.ASSIGNED]
            for run in closed:
                run.closed = CLOSED_BY_DRAIN
                self._wake(run.name)
            return len(closed)

    def _find_run(self, name: str) -> Run | None:
        """A run, None once it was idle for long enough to be forgotten."""
        run = self._runs.get(name)
        if run is not None and run.phase is RunPhase.IDLE and run.seen_at <= self.now() - IDLE_RUN_SECONDS:
            del self._runs[name]
            return None
        return run

    def _assigned_run(self, record: Record) -> Run | None:
        """The run that has the record's present launch."""
        run = self._find_run(record.run) if record.run else None
        return run if run is not None and run.is_of(record.id, record.nonce, record.launch) else None

    def _find_idle_run(self, record: Record, claim_request: ClaimRequest | None) -> Run | None:
        """The idle run of the claim's pool that was used last. What is looked at and does not fit is dropped."""
        if claim_request is None:
            return None
        own_name = build_client_token(record.id, record.nonce, record.launch)
        entries = [(since, name) for name, (since, pool) in self._idle_since.items() if pool == claim_request.pool]
        for _, name in sorted(entries, reverse=True)[:MAX_IDLE_LOOKED_AT]:
            run = self._find_run(name)
            if run and assignments.may_take(run, claim_request, own_name, self.now(), self._settings):
                return run
            del self._idle_since[name]
        return None

    def _follow_claim(self, record: Record, claim_request: ClaimRequest, code: ResultCode) -> None:
        """Make or wake the run that a claim has given the record to."""
        own_name = build_client_token(record.id, record.nonce, record.launch)
        if code is ResultCode.ASSIGNED:
            self._runs.pop(own_name, None)
            self._idle_since.pop(record.run, None)
            self._wake(record.run)
        elif code is ResultCode.RUN_TASK and record.run:
            self._runs[own_name] = assignments.make_run(record, claim_request, self.now())

    def _follow_run(self, name: str, change: assignments.RunChange) -> None:
        """Do with the run what an operation on its record has decided."""
        if change.deletes:
            self._runs.pop(name, None)
        if change.wakes:
            self._wake(name)
        if change.is_idle:
            self._idle_since[name] = (self.now(), self._runs[name].pool)

    def _void_left_run(self, record: Record, run: Run | None) -> None:
        """Void the `run` that had the record's launch, if an operation of the claim has taken the record out of it."""
        has_left = record.state is not State.LAUNCHING and record.state is not State.LAUNCHED
        if run is not None and has_left and run.phase is RunPhase.ASSIGNED and assignments.void(run, "", 0.0):
            del self._runs[run.name]

    def _note_change(self, name: str, has_changed: bool) -> None:
        if has_changed:
            self._changed_runs[name] = self.now()
            self._signalled.notify_all()

    def _wake(self, name: str) -> None:
        self._wakes[name] = 1
        self._signalled.notify_all()


def _without_payload(run: Run) -> Run:
    return msgspec.structs.replace(run, payload="")
