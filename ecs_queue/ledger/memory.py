"""The ledger in one process's memory: for tests, simulations and `memory://`. Thread-safe; lost with the process."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ecs_queue.ledger.memory_coordination import MemoryCoordination
from ecs_queue.ledger.retention import Retention
from ecs_queue.ledger.view import copy_record, index_of, is_worker_alive, without_request
from ecs_queue.protocol import state_machine
from ecs_queue.protocol.operations import (
    ClaimRequest,
    InFlightCounts,
    OperationResult,
    RefusalKind,
    ResultCode,
    TaskUpdate,
)
from ecs_queue.protocol.reasons import MANUAL_SEARCH_ADVICE
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.states import LIVE_STATES, State


class MemoryLedger(MemoryCoordination):
    """`clock`: seconds since the epoch. Answers hold copies, so no caller can change a record behind its back.

    Answers leave out `request` where the Redis form does.
    """

    def __init__(self, clock: Callable[[], float], protocol_settings: ProtocolSettings, retention: Retention) -> None:
        super().__init__(clock)
        self._settings = protocol_settings
        self._retention = retention
        self._start_deadlines: dict[str, float] = {}  # QUEUED records with a deadline: when somebody must end them
        self._forget_at: dict[str, float] = {}  # finished records: when they are forgotten
        self._terminal_counts: defaultdict[tuple[str, State], int] = defaultdict(int)

    def put(self, submissions: Sequence[Submission]) -> list[OperationResult]:
        """See `Ledger.put`."""
        return [self._put(new) for new in submissions]

    def _put(self, submission: Submission) -> OperationResult:
        with self._lock:
            now = self.now()
            word, record = state_machine.put(self._find_record(submission.id), submission, now)
            if record is None:
                return OperationResult(word)
            if word is ResultCode.CREATED:
                self._forget_at.pop(record.id, None)  # of an earlier request with this id
                self._records[record.id] = record
                self._due_at[record.id] = now + self._settings.sweep_after_seconds
                self._index_expiry(record)
                return OperationResult(word)
            if word is ResultCode.ENDED:
                self._start_retention(record, now)
            return OperationResult(word, without_request(record))

    def put_and_claim(
        self, submission: Submission, claim_request: ClaimRequest
    ) -> tuple[OperationResult, OperationResult]:
        """See `Ledger.put_and_claim`."""
        with self._lock:
            stored = self._put(submission)
            if stored.code in (ResultCode.CREATED, ResultCode.UNCHANGED):
                return OperationResult(stored.code), self.claim(submission.id, claim_request)
            return stored, OperationResult(
                ResultCode.NOT_FOUND if stored.code is ResultCode.TOO_LATE else ResultCode.NOT_CLAIMABLE
            )

    def claim(self, record_id: str, claim_request: ClaimRequest | None) -> OperationResult:
        """See `Ledger.claim`."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            word = state_machine.claim(
                record, claim_request, now, self._settings, self._count_in_flight(record, claim_request)
            )
            if word in (ResultCode.RUN_TASK, ResultCode.LIMIT_REACHED, ResultCode.PAUSED):
                self._due_at[record_id] = record.lease_until or record.not_before
            return OperationResult(
                word, None if word in (ResultCode.LIMIT_REACHED, ResultCode.PAUSED) else without_request(record)
            )

    def reclaim(self, record_id: str, claim_request: ClaimRequest) -> OperationResult:
        """See `Ledger.reclaim`."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            holder_lives = is_worker_alive(record, self._workers.get(record.worker), now, self._settings)
            word = state_machine.reclaim(record, claim_request, now, self._settings, holder_lives)
            if word in (ResultCode.RUN_TASK, ResultCode.LIST_TASKS):
                self._due_at[record_id] = record.lease_until
                return OperationResult(word, copy_record(record))
            return OperationResult(word, without_request(record))

    def launched(self, record_id: str, nonce: str, launch: int, arn: str, wait: float) -> OperationResult:
        """See `Ledger.launched`."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.UNWANTED)
            word = state_machine.launched(record, nonce, launch, arn, now)
            if word is ResultCode.OK:
                self._due_at[record_id] = now if record.stop_requested_by else now + wait
            return OperationResult(word)

    def call_ambiguous(
        self, record_id: str, claim: str, wait: float, reason: str, call_completed: str = ""
    ) -> OperationResult:
        """See `Ledger.call_ambiguous`."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.CLAIM_LOST)
            word = state_machine.call_ambiguous(record, claim, call_completed, reason, now, self._settings)
            return self._reschedule(record, word, now + wait)

    def no_effect(self, record_id: str, claim: str, wait: float, reason: str) -> OperationResult:
        """See `Ledger.no_effect`."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.CLAIM_LOST)
            word = state_machine.no_effect(record, claim, wait, reason, now, self._settings)
            return self._reschedule(record, word, now + wait)

    def refused(
        self, record_id: str, claim: str, kind: RefusalKind, wait: float, reason: str, max_attempts: int
    ) -> OperationResult:
        """See `Ledger.refused`."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.CLAIM_LOST)
            word = state_machine.refused(record, claim, kind, wait, reason, max_attempts, now, self._settings)
            return self._reschedule(record, word, now + wait)

    def task_absent(
        self, record_id: str, claim: str, wait: float, advice: str = MANUAL_SEARCH_ADVICE
    ) -> OperationResult:
        """See `Ledger.task_absent`."""
        with self._locked_record(record_id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.CLAIM_LOST)
            safe_at = state_machine.absence_provable_at(record, self._settings)
            word = state_machine.task_absent(record, claim, wait, advice, now, self._settings)
            return self._reschedule(
                record, word, min(safe_at, now + wait) if word is ResultCode.TOO_EARLY else now + wait
            )

    def update_tasks(self, updates: Sequence[TaskUpdate]) -> list[OperationResult]:
        """See `Ledger.update_tasks`."""
        return [self._update_task(seen) for seen in updates]

    def _update_task(self, update: TaskUpdate) -> OperationResult:
        with self._locked_record(update.id) as (record, now):
            if record is None:
                return OperationResult(ResultCode.NOT_FOUND)
            word = state_machine.update_task(record, update, now)
            if word is ResultCode.OK and record.stop_requested_by and self._due_at[record.id] <= now:
                return OperationResult(word)  # a stop has made it due since it was popped
            return self._reschedule(record, word, now + update.wait)

    def reschedule_poll(self, waits: Mapping[str, float]) -> None:
        """See `Ledger.reschedule_poll`."""
        with self._lock:
            now = self.now()
            for record_id, wait in waits.items():
                record = self._find_record(record_id)
                if record and index_of(record) == "due" and self._due_at[record_id] > now:
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
                return OperationResult(ResultCode.ENDED, without_request(record))
            word = state_machine.stop(record, requested_by, launch, now)
            if word is ResultCode.STOP_REQUESTED:
                self._due_at[record_id] = max(now, record.lease_until)
            return OperationResult(word, without_request(record))

    def adopt(self, ids: Sequence[str], owner: str) -> list[OperationResult]:
        """See `Ledger.adopt`."""
        answers = []
        for record_id in ids:
            with self._locked_record(record_id) as (record, now):
                if record is None:
                    answers.append(OperationResult(ResultCode.NOT_FOUND))
                    continue
                word = state_machine.adopt(record, owner)
                self._start_retention(record, now)
                answers.append(OperationResult(word, without_request(record)))
        return answers

    def confirm(self, results: Sequence[tuple[str, str]], owner: str) -> list[OperationResult]:
        """See `Ledger.confirm`."""
        answers = []
        for record_id, nonce in results:
            with self._locked_record(record_id) as (record, now):
                word = state_machine.confirm(record, nonce, owner, now) if record else ResultCode.NOT_OWNER
                if record and word is ResultCode.OK:
                    self._start_retention(record, now)
                answers.append(OperationResult(word))
        return answers

    def lease_due(self, limit: int) -> list[Record]:
        """See `Ledger.lease_due`."""
        return [without_request(record) for record in self._lease("due", limit)]

    def lease_due_retries(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.lease_due_retries`."""
        return self._lease(f"retry:{queue}", limit)

    def lease_unclaimed(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.lease_unclaimed`."""
        return self._lease(f"unclaimed:{queue}", limit)

    def _lease(self, index: str, limit: int) -> list[Record]:
        with self._lock:
            now = self.now()
            due = sorted((at, key) for key, at in self._due_at.items() if at <= now)
            found = [r for _, key in due if index_of(r := self._records[key]) == index][:limit]
            for record in found:
                self._due_at[record.id] = now + self._settings.lease_seconds
            return [copy_record(record) for record in found]

    def lease_expired(self, limit: int) -> list[str]:
        """See `Ledger.lease_expired`."""
        with self._lock:
            now = self.now()
            found = [key for at, key in sorted((at, key) for key, at in self._start_deadlines.items()) if at <= now][
                :limit
            ]
            for record_id in found:
                self._start_deadlines[record_id] = now + self._settings.lease_seconds
            return found

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """See `Ledger.get`."""
        with self._lock:
            return [copy_record(r) if (r := self._find_record(record_id)) else None for record_id in ids]

    def find_id_by_arn(self, arn: str) -> str | None:
        """See `Ledger.find_id_by_arn`."""
        with self._lock:
            return next((r.id for r in self._records.values() if r.arn == arn and not r.is_terminal), None)

    def list_undelivered(self, owner: str, limit: int) -> list[Record]:
        """See `Ledger.list_undelivered`."""
        with self._lock:
            mine = [r for r in self._all_records() if r.undelivered and r.owner == owner]
            return [without_request(r) for r in sorted(mine, key=lambda r: (r.finished_at, r.id))[:limit]]

    def list_records(self, after: str, limit: int) -> tuple[list[Record], str]:
        """See `Ledger.list_records`."""
        with self._lock:
            live = sorted((r for r in self._all_records() if not r.is_terminal), key=lambda r: -r.created_at)
            ended = sorted((r for r in self._all_records() if r.is_terminal), key=lambda r: -self._forget_at[r.id])
            offset = int(after or 0)
            found = (live + ended)[offset : offset + limit]
            return [copy_record(r) for r in found], str(offset + limit) if len(found) == limit else ""

    def count_by_state(self) -> dict[str, dict[State, int]]:
        """See `Ledger.count_by_state`."""
        with self._lock:
            totals: dict[str, dict[State, int]] = defaultdict(dict)
            for (queue, state), number in self._terminal_counts.items():
                totals[queue][state] = number
            for record in self._records.values():
                if not record.is_terminal:
                    totals[record.queue][record.state] = totals[record.queue].get(record.state, 0) + 1
            return dict(totals)

    def prune(self, limit: int) -> int:
        """See `Ledger.prune`."""
        with self._lock:
            now = self.now()
            gone = [key for at, key in sorted((at, key) for key, at in self._forget_at.items()) if at <= now][:limit]
            for record_id in gone:
                del self._records[record_id], self._forget_at[record_id]
            self._dead_letters.trim(now)
            return len(gone)

    def check_server(self) -> list[str]:
        """Nothing can be wrong with memory but that it is one."""
        return []

    def close(self) -> None:
        """Nothing is held."""

    @contextmanager
    def _locked_record(self, record_id: str) -> Iterator[tuple[Record | None, float]]:
        """The record under the lock; what its end entails follows on the way out."""
        with self._lock:
            now = self.now()
            record = self._find_record(record_id)
            was = record.state if record else None
            yield record, now
            if record is None or record.state is was:
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
        return OperationResult(
            code, without_request(record) if code in (ResultCode.REQUEUED, ResultCode.ENDED) else None
        )

    def _start_retention(self, record: Record, now: float) -> None:
        if record.is_terminal:
            self._forget_at[record.id] = self._retention.forget_at(record, now)

    def _find_record(self, record_id: str) -> Record | None:
        """The record unless its retention is over."""
        return self._records.get(record_id) if self._forget_at.get(record_id, math.inf) > self.now() else None

    def _all_records(self) -> list[Record]:
        return [record for record_id in self._records if (record := self._find_record(record_id))]

    def _count_in_flight(self, record: Record, claim_request: ClaimRequest | None) -> InFlightCounts:
        paused = record.queue in self._paused_since
        if not (self._settings.max_in_flight or (claim_request and claim_request.queue_limit)):
            return InFlightCounts(paused=paused)
        queues = [other.queue for other in self._records.values() if other.state in _IN_FLIGHT_STATES]
        return InFlightCounts(total=len(queues), queue=queues.count(record.queue), paused=paused)


_IN_FLIGHT_STATES = LIVE_STATES - {State.QUEUED}
