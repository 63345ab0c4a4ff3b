"""The ledger in one process's memory: for tests, simulations and `memory://`. Thread-safe; lost with the process."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import msgspec

from ecs_queue.findings import Finding
from ecs_queue.ledger.memory_broken_items import BrokenRecord, answer_broken
from ecs_queue.ledger.memory_keys import MemoryKeys
from ecs_queue.ledger.memory_reader import without_payload
from ecs_queue.ledger.memory_runs import MemoryRuns
from ecs_queue.ledger.memory_schedule import MemorySchedule, keys_until, without_request
from ecs_queue.protocol import assignments
from ecs_queue.protocol.concurrency_keys import has_turn, holds_key_slot
from ecs_queue.protocol.operations import (
    ClaimRequest,
    InFlightCounts,
    OperationResult,
    RefusalKind,
    ResultCode,
    SettleRequest,
    TaskUpdate,
)
from ecs_queue.protocol.poison import claimed_at
from ecs_queue.protocol.reasons import MANUAL_SEARCH_ADVICE
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.protocol.record_defects import find_record_defect
from ecs_queue.protocol.record_moves import is_starting
from ecs_queue.protocol.repeated_calls import find_answer
from ecs_queue.protocol.settings import FIRST_LOOK_SECONDS, MAX_CLOCK_SKEW, ProtocolSettings
from ecs_queue.protocol.state_machine import claims, client_operations, launch_reports, task_updates
from ecs_queue.protocol.states import LIVE_STATES, State
from ecs_queue.server_users import ServerUser

_IN_FLIGHT_STATES = LIVE_STATES - {State.QUEUED}


class MemoryLedger(MemorySchedule, MemoryKeys, MemoryRuns):
    """Results contain copies of records, so no caller can change a record behind the ledger's back.

    Records leave out their payload, or `request`, where the Redis implementation does.

    Args:
        clock: Returns seconds since the epoch.
        settings: The protocol's numbers.
    """

    def __init__(self, clock: Callable[[], float], settings: ProtocolSettings) -> None:
        super().__init__(clock)
        self._settings = settings
        self._records: dict[str, Record] = {}
        self._due_at: dict[str, float] = {}  # live records: when they are due next
        self._start_deadlines: dict[str, float] = {}  # QUEUED records with a deadline: when they are to be ended
        self._forget_at: dict[str, float] = {}  # finished records: when they are forgotten
        self._shown_at = 0.0  # what the clock showed when it was last read
        self._terminal_counts: Counter[tuple[str, State]] = Counter()

    def put(self, submissions: Sequence[Submission]) -> list[OperationResult]:
        """See `Ledger.put`."""
        return [self._put(submission) for submission in submissions]

    @answer_broken
    def _put(self, submission: Submission) -> OperationResult:
        with self._lock:
            now = self.now()
            code, record = client_operations.put(self._find_record(submission.id), submission, now)
            if record is None:
                return OperationResult(code)
            if code is ResultCode.CREATED:
                self._forget_at.pop(record.id, None)  # of an earlier request with this id
                self._records[record.id] = record
                self._due_at[record.id] = record.not_before or now + self._settings.sweep_after_seconds
                self._index_expiry(record)
                return OperationResult(code)
            if code is ResultCode.ENDED:
                self._start_retention(record, now)
            return OperationResult(code, without_payload(record))

    def put_and_claim(
        self, submission: Submission, claim_request: ClaimRequest
    ) -> tuple[OperationResult, OperationResult]:
        """See `Ledger.put_and_claim`."""
        with self._lock:
            stored = self._put(submission)
            if stored.code in (ResultCode.CREATED, ResultCode.UNCHANGED):
                return OperationResult(stored.code), self.claim(submission.id, claim_request)
            is_late = stored.code is ResultCode.TOO_LATE
            return stored, OperationResult(ResultCode.NOT_FOUND if is_late else ResultCode.NOT_CLAIMABLE)

    @answer_broken
    def claim(self, record_id: str, claim_request: ClaimRequest | None) -> OperationResult:
        """See `Ledger.claim`."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            claim_token = claim_request.claim if claim_request else ""
            is_repeated = find_answer(record, "claim", claim_token) is not None
            in_flight = self._count_in_flight(record, claim_request)
            find_idle_run = partial(self._find_idle_run, record, claim_request)
            find_key_room = partial(self._find_key_room, record, claim_request, now)
            code = claims.claim(record, claim_request, now, self._settings, in_flight, find_idle_run, find_key_room)
            if claim_request and not is_repeated:
                self._follow_claim(record, claim_request, code)
                self._follow_key_claim(record, claim_request, code, now)
            has_obstacle = code in (ResultCode.LIMIT_REACHED, ResultCode.PAUSED, ResultCode.KEY_FULL)
            if not is_repeated and (has_obstacle or code is ResultCode.RUN_TASK):
                self._due_at[record_id] = record.lease_until or record.not_before
            if code is ResultCode.ASSIGNED and not is_repeated:
                self._due_at[record_id] = now + min(FIRST_LOOK_SECONDS, self._settings.runner_ttl)
            if has_obstacle or code is ResultCode.NO_RUNNER:
                return OperationResult(code)
            return OperationResult(
                code, without_request(record) if code is ResultCode.RUN_TASK else without_payload(record)
            )

    @answer_broken
    def reclaim(self, record_id: str, claim_request: ClaimRequest) -> OperationResult:
        """See `Ledger.reclaim`."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            is_repeated = find_answer(record, "reclaim", claim_request.claim) is not None
            is_alive = self._is_worker_alive(record.worker, claimed_at(record, self._settings))
            run, old_state = self._assigned_run(record), record.state
            code = claims.reclaim(record, claim_request, now, self._settings, is_alive, run)
            self._void_left_run(record, run)
            if record.state is not old_state and not record.is_terminal:
                self._due_at[record_id] = now
            if code in (ResultCode.RUN_TASK, ResultCode.LIST_TASKS):
                if not is_repeated:
                    self._due_at[record_id] = record.lease_until
                return OperationResult(code, _copy(record))
            return OperationResult(code, without_payload(record))

    @answer_broken
    def launched(self, record_id: str, nonce: str, launch: int, arn: str, wait: float) -> OperationResult:
        """See `Ledger.launched`."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.UNWANTED)
            code = launch_reports.launched(record, nonce, launch, arn, now, self._assigned_run(record))
            result = self._reschedule(record, code, now if record.stop_requested_by else now + wait)
            return msgspec.structs.replace(result, at=now if code is ResultCode.OK else 0.0)

    def call_ambiguous(
        self, record_id: str, claim: str, wait: float, reason: str, call_completed: bool = False
    ) -> OperationResult:
        """See `Ledger.call_ambiguous`."""
        return self._report(record_id, claim, wait, launch_reports.call_ambiguous, call_completed, reason)

    def no_effect(self, record_id: str, claim: str, wait: float, reason: str) -> OperationResult:
        """See `Ledger.no_effect`."""
        return self._report(record_id, claim, wait, launch_reports.no_effect, wait, reason, has_run=True)

    def refused(
        self, record_id: str, claim: str, kind: RefusalKind, wait: float, reason: str, max_attempts: int
    ) -> OperationResult:
        """See `Ledger.refused`."""
        arguments = (kind, wait, reason, max_attempts)
        return self._report(record_id, claim, wait, launch_reports.refused, *arguments, has_run=True)

    def task_absent(
        self, record_id: str, claim: str, wait: float, advice: str = MANUAL_SEARCH_ADVICE
    ) -> OperationResult:
        """See `Ledger.task_absent`."""
        return self._report(record_id, claim, wait, launch_reports.task_absent, wait, advice)

    @answer_broken
    def _report(
        self,
        record_id: str,
        claim: str,
        wait: float,
        change: Callable[..., ResultCode],
        *arguments: object,
        has_run: bool = False,
    ) -> OperationResult:
        """Run an operation of the worker that holds the claim. The record is due in `wait` seconds."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.CLAIM_LOST)
            is_repeated = find_answer(record, change.__name__, claim) is not None
            provable_at = launch_reports.absence_provable_at(record, self._settings)
            run = self._assigned_run(record)
            code = change(record, claim, *arguments, now, self._settings, *([run] if has_run else []))
            self._void_left_run(record, run)
            if record.state is State.LAUNCHED:
                wait = 0.0
            due_at = min(provable_at, now + wait) if code is ResultCode.TOO_EARLY else now + wait
            return self._reschedule(record, code, self._due_at.get(record_id, due_at) if is_repeated else due_at)

    def update_tasks(self, updates: Sequence[TaskUpdate]) -> list[OperationResult]:
        """See `Ledger.update_tasks`."""
        return [self._update_task(update) for update in updates]

    @answer_broken
    def _update_task(self, update: TaskUpdate) -> OperationResult:
        with self._locked_record(update.id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            code = task_updates.update_task(record, update, now)
            if code is ResultCode.OK and record.stop_requested_by and self._due_at[record.id] <= now:
                return OperationResult(code)  # a stop has made it due since it was leased
            return self._reschedule(record, code, now + update.wait)

    def stop(self, ids: Sequence[str], requested_by: str, launch: int = 0) -> list[OperationResult]:
        """See `Ledger.stop`."""
        return [self._stop(record_id, requested_by, launch) for record_id in ids]

    @answer_broken
    def _stop(self, record_id: str, requested_by: str, launch: int) -> OperationResult:
        with self._locked_record(record_id) as (record, now):
            if record is None and launch:
                return OperationResult(ResultCode.NOT_FOUND)
            if record is None:
                record = client_operations.build_tombstone(record_id, requested_by, now, self._settings)
                self._records[record_id] = record
                self._terminal_counts["", State.REVOKED] += 1
                self._start_retention(record, now)
                return OperationResult(ResultCode.ENDED, without_payload(record))
            if record.run and client_operations.find_stop_obstacle(record, launch) is None:
                change = assignments.stop(record, self._assigned_run(record), requested_by, now, self._settings)
                return self._follow(record, record.run, change)
            code = client_operations.stop(record, requested_by, launch, now)
            if code is ResultCode.STOP_REQUESTED:
                self._due_at[record_id] = max(now, record.lease_until)
            return OperationResult(code, without_payload(record))

    def adopt(self, ids: Sequence[str], owner: str) -> list[OperationResult]:
        """See `Ledger.adopt`."""
        return [self._adopt(record_id, owner) for record_id in ids]

    @answer_broken
    def _adopt(self, record_id: str, owner: str) -> OperationResult:
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            code = client_operations.adopt(record, owner)
            self._start_retention(record, now)
            return OperationResult(code, without_payload(record))

    def confirm(self, results: Sequence[tuple[str, str]], owner: str) -> list[OperationResult]:
        """See `Ledger.confirm`."""
        return [self._confirm(record_id, nonce, owner) for record_id, nonce in results]

    @answer_broken
    def _confirm(self, record_id: str, nonce: str, owner: str) -> OperationResult:
        with self._locked_record(record_id) as (record, now):
            if record is None or client_operations.confirm(record, nonce, owner, now) is ResultCode.NOT_OWNER:
                return OperationResult(ResultCode.NOT_OWNER)
            self._start_retention(record, now)
            return OperationResult(ResultCode.OK)

    def prune(self, limit: int) -> int:
        """See `Ledger.prune`."""
        with self._lock:
            now = self.now()
            ids = keys_until(now, self._forget_at)[:limit]
            for record_id in ids:
                del self._records[record_id], self._forget_at[record_id]
            self._trim_dead_letters()
            return len(ids)

    def check_server(self, user: ServerUser = ServerUser.WORKER, durability: str = "") -> list[Finding]:
        """See `LedgerServer.check_server`. There is no server that could be wrong."""
        del user, durability
        return []

    def close(self) -> None:
        """See `Ledger.close`. There is nothing to close."""

    @contextmanager
    def _locked_record(self, record_id: str) -> Iterator[tuple[Record | None, float]]:
        """The record and the time, under the lock; indexes follow the record's new state on exit."""
        with self._lock:
            now = self.now()
            record = self._find_record(record_id)
            old_state = record.state if record else None
            had_slot, had_turn = (holds_key_slot(record), has_turn(record, now)) if record else (False, False)
            yield record, now
            if record is not None and record.concurrency_key:
                self._follow_key(record, had_slot, had_turn, now)
            if record is None or record.state is old_state:
                return
            self._index_expiry(record)
            if record.is_terminal:
                self._due_at.pop(record_id, None)
                self._terminal_counts[record.queue, record.state] += 1
                self._start_retention(record, now)

    def _index_expiry(self, record: Record) -> None:
        if record.state is State.QUEUED and record.expires_at:
            self._start_deadlines[record.id] = record.expires_at - self._settings.startup_allowance
        else:
            self._start_deadlines.pop(record.id, None)

    def settle(self, requests: Sequence[SettleRequest]) -> list[OperationResult]:
        """See `Ledger.settle`."""
        return [self._settle(request) for request in requests]

    @answer_broken
    def _settle(self, request: SettleRequest) -> OperationResult:
        with self._locked_record(request.id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            name, run = record.run, self._assigned_run(record)
            return self._follow(record, name, assignments.settle(record, run, request, now, self._settings))

    def update_runner_tasks(self, updates: Sequence[TaskUpdate]) -> list[OperationResult]:
        """See `Ledger.update_runner_tasks`."""
        return [self._update_runner_task(update) for update in updates]

    @answer_broken
    def _update_runner_task(self, update: TaskUpdate) -> OperationResult:
        with self._locked_record(update.id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            name, run = record.run, self._assigned_run(record)
            return self._follow(record, name, assignments.update_runner_task(record, run, update, now))

    def put_back(self, ids: Sequence[str]) -> list[OperationResult]:
        """See `Ledger.put_back`."""
        return [self._put_back(record_id) for record_id in ids]

    @answer_broken
    def _put_back(self, record_id: str) -> OperationResult:
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            is_in_launch = record.state in (State.LAUNCHING, State.LAUNCHED)
            name, run = record.run, self._assigned_run(record) if is_in_launch else None
            change = assignments.put_back(record, run, now)
            if change.code is ResultCode.STALE:
                return OperationResult(change.code)
            return self._follow(record, name, change)

    def _follow(self, record: Record, name: str, change: assignments.RunChange) -> OperationResult:
        """Do with indexes and run what an operation has decided."""
        self._follow_run(name, change)
        if change.due_at is not None and not record.is_terminal:
            self._due_at[record.id] = change.due_at
        return OperationResult(change.code, without_payload(record))

    def _reschedule(self, record: Record, code: ResultCode, due_at: float) -> OperationResult:
        if code in (ResultCode.OK, ResultCode.REQUEUED, ResultCode.TOO_EARLY):
            self._due_at[record.id] = due_at
        has_record = code in (ResultCode.REQUEUED, ResultCode.ENDED)
        return OperationResult(code, without_payload(record) if has_record else None)

    def _start_retention(self, record: Record, now: float) -> None:
        if not record.is_terminal:
            return
        keep = self._settings.retention_seconds
        if record.undelivered:
            keep = max(self._settings.min_unconfirmed_retention, keep)
        # Never while a late duplicate of its message could still be accepted.
        self._forget_at[record.id] = max(record.accept_until + MAX_CLOCK_SKEW, now + keep)

    def _find_record(self, record_id: str) -> Record | None:
        """The record, None once its retention is over. Raises `BrokenRecord` for one that cannot be used."""
        if self._forget_at.get(record_id, math.inf) <= self.now():
            return None
        record = self._records.get(record_id)
        if record_id in self._records and (defect := find_record_defect(record)):
            raise BrokenRecord(record_id, defect)
        return record

    def _count_in_flight(self, record: Record, claim_request: ClaimRequest | None) -> InFlightCounts:
        limits = (claim_request.queue_limit, claim_request.max_starting) if claim_request else ()
        records = self._sound_records() if any((self._settings.max_in_flight, *limits)) else ()
        in_flight = [other for other in records if other.state in _IN_FLIGHT_STATES]
        of_queue = [other for other in in_flight if other.queue == record.queue]
        return InFlightCounts(
            total=len(in_flight),
            queue=len(of_queue),
            starting=sum(map(is_starting, of_queue)),
            paused=record.queue in self._paused_since,
        )


def _copy(record: Record) -> Record:
    return msgspec.structs.replace(record)
