"""The ledger in one process's memory: for tests, simulations and `memory://`. Thread-safe; lost with the process."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from ecs_queue.ledger.memory_coordination import MemoryCoordination
from ecs_queue.protocol import state_machine
from ecs_queue.protocol.operations import (
    ClaimRequest,
    InFlightCounts,
    OperationResult,
    RefusalKind,
    ResultCode,
    TaskUpdate,
)
from ecs_queue.protocol.poison import claimed_at
from ecs_queue.protocol.reasons import MANUAL_SEARCH_ADVICE
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.protocol.repeated_calls import find_answer
from ecs_queue.protocol.settings import MAX_CLOCK_SKEW, ProtocolSettings
from ecs_queue.protocol.states import LIVE_STATES, State

_IN_FLIGHT_STATES = LIVE_STATES - {State.QUEUED}


class MemoryLedger(MemoryCoordination):
    """Results contain copies of records, so no caller can change a record behind the ledger's back.

    Records leave out `request` where the Redis implementation does.

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
        self._terminal_counts: Counter[tuple[str, State]] = Counter()

    def put(self, submissions: Sequence[Submission]) -> list[OperationResult]:
        """See `Ledger.put`."""
        return [self._put(submission) for submission in submissions]

    def _put(self, submission: Submission) -> OperationResult:
        with self._lock:
            now = self.now()
            code, record = state_machine.put(self._find_record(submission.id), submission, now)
            if record is None:
                return OperationResult(code)
            if code is ResultCode.CREATED:
                self._forget_at.pop(record.id, None)  # of an earlier request with this id
                self._records[record.id] = record
                self._due_at[record.id] = now + self._settings.sweep_after_seconds
                self._index_expiry(record)
                return OperationResult(code)
            if code is ResultCode.ENDED:
                self._start_retention(record, now)
            return OperationResult(code, _without_request(record))

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

    def claim(self, record_id: str, claim_request: ClaimRequest | None) -> OperationResult:
        """See `Ledger.claim`."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            claim_token = claim_request.claim if claim_request else ""
            is_repeated = find_answer(record, "claim", claim_token) is not None
            in_flight = self._count_in_flight(record, claim_request)
            code = state_machine.claim(record, claim_request, now, self._settings, in_flight)
            has_obstacle = code in (ResultCode.LIMIT_REACHED, ResultCode.PAUSED)
            if not is_repeated and (has_obstacle or code is ResultCode.RUN_TASK):
                self._due_at[record_id] = record.lease_until or record.not_before
            return OperationResult(code, None if has_obstacle else _without_request(record))

    def reclaim(self, record_id: str, claim_request: ClaimRequest) -> OperationResult:
        """See `Ledger.reclaim`."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            is_repeated = find_answer(record, "reclaim", claim_request.claim) is not None
            is_alive = self._is_worker_alive(record.worker, claimed_at(record, self._settings))
            code = state_machine.reclaim(record, claim_request, now, self._settings, is_alive)
            if code in (ResultCode.RUN_TASK, ResultCode.LIST_TASKS):
                if not is_repeated:
                    self._due_at[record_id] = record.lease_until
                return OperationResult(code, _copy(record))
            return OperationResult(code, _without_request(record))

    def launched(self, record_id: str, nonce: str, launch: int, arn: str, wait: float) -> OperationResult:
        """See `Ledger.launched`."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.UNWANTED)
            code = state_machine.launched(record, nonce, launch, arn, now)
            return self._reschedule(record, code, now if record.stop_requested_by else now + wait)

    def call_ambiguous(
        self, record_id: str, claim: str, wait: float, reason: str, call_completed: bool = False
    ) -> OperationResult:
        """See `Ledger.call_ambiguous`."""
        return self._report(record_id, claim, wait, state_machine.call_ambiguous, call_completed, reason)

    def no_effect(self, record_id: str, claim: str, wait: float, reason: str) -> OperationResult:
        """See `Ledger.no_effect`."""
        return self._report(record_id, claim, wait, state_machine.no_effect, wait, reason)

    def refused(
        self, record_id: str, claim: str, kind: RefusalKind, wait: float, reason: str, max_attempts: int
    ) -> OperationResult:
        """See `Ledger.refused`."""
        return self._report(record_id, claim, wait, state_machine.refused, kind, wait, reason, max_attempts)

    def task_absent(
        self, record_id: str, claim: str, wait: float, advice: str = MANUAL_SEARCH_ADVICE
    ) -> OperationResult:
        """See `Ledger.task_absent`."""
        return self._report(record_id, claim, wait, state_machine.task_absent, wait, advice)

    def _report(
        self, record_id: str, claim: str, wait: float, change: Callable[..., ResultCode], *arguments: object
    ) -> OperationResult:
        """Run an operation of the worker that holds the claim. The record is due in `wait` seconds."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.CLAIM_LOST)
            is_repeated = find_answer(record, change.__name__, claim) is not None
            provable_at = state_machine.absence_provable_at(record, self._settings)
            code = change(record, claim, *arguments, now, self._settings)
            due_at = min(provable_at, now + wait) if code is ResultCode.TOO_EARLY else now + wait
            return self._reschedule(record, code, self._due_at.get(record_id, due_at) if is_repeated else due_at)

    def update_tasks(self, updates: Sequence[TaskUpdate]) -> list[OperationResult]:
        """See `Ledger.update_tasks`."""
        return [self._update_task(update) for update in updates]

    def _update_task(self, update: TaskUpdate) -> OperationResult:
        with self._locked_record(update.id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            code = state_machine.update_task(record, update, now)
            if code is ResultCode.OK and record.stop_requested_by and self._due_at[record.id] <= now:
                return OperationResult(code)  # a stop has made it due since it was leased
            return self._reschedule(record, code, now + update.wait)

    def reschedule_poll(self, waits: Mapping[str, float]) -> None:
        """See `Ledger.reschedule_poll`."""
        with self._lock:
            now = self.now()
            for record_id, wait in waits.items():
                record = self._find_record(record_id)
                if record and _index_of(record) == "due" and self._due_at[record_id] > now:
                    self._due_at[record_id] = now + wait

    def stop(self, ids: Sequence[str], requested_by: str, launch: int = 0) -> list[OperationResult]:
        """See `Ledger.stop`."""
        return [self._stop(record_id, requested_by, launch) for record_id in ids]

    def _stop(self, record_id: str, requested_by: str, launch: int) -> OperationResult:
        with self._locked_record(record_id) as (record, now):
            if record is None and launch:
                return OperationResult(ResultCode.NOT_FOUND)
            if record is None:
                record = state_machine.build_tombstone(record_id, requested_by, now, self._settings)
                self._records[record_id] = record
                self._terminal_counts["", State.REVOKED] += 1
                self._start_retention(record, now)
                return OperationResult(ResultCode.ENDED, _without_request(record))
            code = state_machine.stop(record, requested_by, launch, now)
            if code is ResultCode.STOP_REQUESTED:
                self._due_at[record_id] = max(now, record.lease_until)
            return OperationResult(code, _without_request(record))

    def adopt(self, ids: Sequence[str], owner: str) -> list[OperationResult]:
        """See `Ledger.adopt`."""
        return [self._adopt(record_id, owner) for record_id in ids]

    def _adopt(self, record_id: str, owner: str) -> OperationResult:
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            code = state_machine.adopt(record, owner)
            self._start_retention(record, now)
            return OperationResult(code, _without_request(record))

    def confirm(self, results: Sequence[tuple[str, str]], owner: str) -> list[OperationResult]:
        """See `Ledger.confirm`."""
        return [self._confirm(record_id, nonce, owner) for record_id, nonce in results]

    def _confirm(self, record_id: str, nonce: str, owner: str) -> OperationResult:
        with self._locked_record(record_id) as (record, now):
            if record is None or state_machine.confirm(record, nonce, owner, now) is ResultCode.NOT_OWNER:
                return OperationResult(ResultCode.NOT_OWNER)
            self._start_retention(record, now)
            return OperationResult(ResultCode.OK)

    def lease_due(self, limit: int) -> list[Record]:
        """See `Ledger.lease_due`."""
        return [_without_request(record) for record in self._lease("due", limit)]

    def lease_due_retries(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.lease_due_retries`."""
        return self._lease(f"retry:{queue}", limit)

    def lease_unclaimed(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.lease_unclaimed`."""
        return self._lease(f"unclaimed:{queue}", limit)

    def _lease(self, index: str, limit: int) -> list[Record]:
        with self._lock:
            now = self.now()
            records = [r for key in _keys_until(now, self._due_at) if _index_of(r := self._records[key]) == index]
            for record in records[:limit]:
                self._due_at[record.id] = now + self._settings.lease_seconds
            return [_copy(record) for record in records[:limit]]

    def lease_expired(self, limit: int) -> list[str]:
        """See `Ledger.lease_expired`."""
        with self._lock:
            now = self.now()
            ids = _keys_until(now, self._start_deadlines)[:limit]
            self._start_deadlines.update(dict.fromkeys(ids, now + self._settings.lease_seconds))
            return ids

    def poll_soon(self, within: float, limit: int) -> int:
        """See `Ledger.poll_soon`."""
        with self._lock:
            now = self.now()
            later = ((at, key) for key, at in self._due_at.items() if at > now + within)
            in_flight = [key for _, key in sorted(later, reverse=True) if _index_of(self._records[key]) == "due"]
            ids = [key for key in in_flight[:limit] if self._records[key].state is State.LAUNCHED]
            for number, record_id in enumerate(ids, 1):
                self._due_at[record_id] = round(now + within * number / len(ids), 3)
            return len(ids)

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """See `Ledger.get`."""
        with self._lock:
            return [_copy(r) if (r := self._find_record(record_id)) else None for record_id in ids]

    def find_id_by_arn(self, arn: str) -> str | None:
        """See `Ledger.find_id_by_arn`."""
        with self._lock:
            return next((r.id for r in self._records.values() if r.arn == arn and not r.is_terminal), None)

    def list_undelivered(self, owner: str, limit: int) -> list[Record]:
        """See `Ledger.list_undelivered`."""
        with self._lock:
            records = [r for r in self._all_records() if r.undelivered and r.owner == owner]
            return [_without_request(r) for r in sorted(records, key=lambda r: (r.finished_at, r.id))[:limit]]

    def list_records(self, after: str, limit: int) -> tuple[list[Record], str]:
        """See `Ledger.list_records`."""
        with self._lock:
            live = sorted((r for r in self._all_records() if not r.is_terminal), key=lambda r: -r.created_at)
            ended = sorted((r for r in self._all_records() if r.is_terminal), key=lambda r: -self._forget_at[r.id])
            offset = int(after or 0)
            page = (live + ended)[offset : offset + limit]
            return [_copy(r) for r in page], str(offset + limit) if len(page) == limit else ""

    def count_by_state(self) -> dict[str, dict[State, int]]:
        """See `Ledger.count_by_state`."""
        with self._lock:
            live = Counter((record.queue, record.state) for record in self._records.values() if not record.is_terminal)
            totals: dict[str, dict[State, int]] = defaultdict(dict)
            for (queue, state), number in (self._terminal_counts | live).items():
                totals[queue][state] = number
            return dict(totals)

    def prune(self, limit: int) -> int:
        """See `Ledger.prune`."""
        with self._lock:
            now = self.now()
            ids = _keys_until(now, self._forget_at)[:limit]
            for record_id in ids:
                del self._records[record_id], self._forget_at[record_id]
            self._trim_dead_letters()
            return len(ids)

    def check_server(self) -> list[str]:
        """See `Ledger.check_server`. There is no server that could be wrong."""
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
            yield record, now
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

    def _reschedule(self, record: Record, code: ResultCode, due_at: float) -> OperationResult:
        if code in (ResultCode.OK, ResultCode.REQUEUED, ResultCode.TOO_EARLY):
            self._due_at[record.id] = due_at
        has_record = code in (ResultCode.REQUEUED, ResultCode.ENDED)
        return OperationResult(code, _without_request(record) if has_record else None)

    def _start_retention(self, record: Record, now: float) -> None:
        if not record.is_terminal:
            return
        keep = self._settings.retention_seconds
        if record.undelivered:
            keep = max(self._settings.min_unconfirmed_retention, keep)
        # Never while a late duplicate of its message could still be accepted.
        self._forget_at[record.id] = max(record.accept_until + MAX_CLOCK_SKEW, now + keep)

    def _find_record(self, record_id: str) -> Record | None:
        """The record, None once its retention is over."""
        return self._records.get(record_id) if self._forget_at.get(record_id, math.inf) > self.now() else None

    def _all_records(self) -> list[Record]:
        return [record for record_id in self._records if (record := self._find_record(record_id))]

    def _count_in_flight(self, record: Record, claim_request: ClaimRequest | None) -> InFlightCounts:
        has_limit = self._settings.max_in_flight or (claim_request and claim_request.queue_limit)
        records = self._records.values() if has_limit else ()
        queues = [other.queue for other in records if other.state in _IN_FLIGHT_STATES]
        paused = record.queue in self._paused_since
        return InFlightCounts(total=len(queues), queue=queues.count(record.queue), paused=paused)


def _copy(record: Record) -> Record:
    return msgspec.structs.replace(record)


def _without_request(record: Record) -> Record:
    """A copy for callers that have no use for the payload."""
    return msgspec.structs.replace(record, request=b"")


def _index_of(record: Record) -> str:
    """The index that a record stands in (ledger/base.py)."""
    if record.state is State.QUEUED:
        return f"{'retry' if record.not_before else 'unclaimed'}:{record.queue}"
    return "" if record.is_terminal else "due"


def _keys_until(now: float, index: Mapping[str, float]) -> list[str]:
    """The keys whose time has come, earliest first."""
    return [key for at, key in sorted((at, key) for key, at in index.items() if at <= now)]
