"""The ledger: the shared truth about every request. One protocol, two forms (memory, Redis), one conformance suite.

Each operation is atomic, and its clock is the ledger's own. An operation may run twice when its answer is lost:
claims are held by random tokens and everything else is a compare-and-set, so the second run finds that the record
has moved on. Every method may raise `LedgerUnavailable`, and then nothing is known about its effect.

A live record stands in exactly one index, with the time when somebody must look at it next:

- `unclaimed:<queue>`: QUEUED, and no worker has yet said a word about it: its message is on its way, or lost.
- `retry:<queue>`:  QUEUED with a `not_before`: a delayed retry. No message carries it.
- `due`:            LAUNCHING and LAUNCHED: the lease ends, or the task is to be described.

and, while QUEUED with a deadline, in `expiry` too. Popping a record from an index pushes its time to now + lease: a
worker that dies is followed by another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from ecs_queue.protocol.event_health import EventFact, EventHealth
from ecs_queue.protocol.operations import ClaimRequest, OperationResult, Refusal, TaskUpdate
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.protocol.state_machine import MANUAL_SEARCH_ADVICE
from ecs_queue.protocol.states import State


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that could not be used: its raw bytes and why. `at`: seconds since the epoch, ledger's clock.

    `key` is its name, of whoever buries it: unique and random, so that a burial that is repeated is one. No two have
    the same `at`: one that is buried in the same moment as another counts as later by a microsecond.
    """

    key: str
    queue: str
    reason: str
    body: bytes
    added_at: float = 0.0


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself with each heartbeat.

    Rates are a second over the last minute: launches, `start_calls` (RunTask, StopTask) and `read_calls`
    (DescribeTasks, ListTasks); the quotas are the configured ones, which all workers share, 0: no limit. Ages are
    seconds at the heartbeat: since it last asked the broker, and ECS; None: never.
    """

    name: str
    host: str
    pid: int
    version: str
    queues: list[str]
    concurrency: int
    launches_in_progress: int
    tasks_followed: int
    launched_total: int
    ended_total: int
    health: str  # "ok", or the reason why a queue is paused
    started_at: float
    last_seen_at: float = 0.0
    launch_rate: float = 0.0
    start_call_rate: float = 0.0
    start_call_limit: float = 0.0
    read_call_rate: float = 0.0
    read_call_limit: float = 0.0
    broker_poll_age: float | None = None
    describe_age: float | None = None


class Ledger(Protocol):
    """See the module's docstring for what every operation guarantees."""

    def now(self) -> float:
        """The ledger's clock, seconds since the epoch."""
        ...

    def put(self, submissions: Sequence[Submission]) -> list[OperationResult]:
        """CREATED, SAME, CONFLICT, TOO_LATE, or ENDED (a stop came first: publish its result); one each, in order."""
        ...

    def put_and_claim(
        self, submission: Submission, claim_request: ClaimRequest
    ) -> tuple[OperationResult, OperationResult]:
        """`put`, and `claim` if the record is of this very request, in one atomic step: both answers. Barrier.

        The claim's answer is MOVED_ON after CONFLICT and ENDED, MISSING after TOO_LATE. After CREATED and SAME the
        first one has no record.
        """
        ...

    def claim(self, record_id: str, claim_request: ClaimRequest | None) -> OperationResult:
        """CALL, ENDED, FULL, PAUSED, MOVED_ON, MISSING. Without an offer: only ends what has expired. Barrier."""
        ...

    def reclaim(self, record_id: str, claim_request: ClaimRequest) -> OperationResult:
        """Take over a LAUNCHING record whose lease is over: CALL, LOOK, MOVED_ON, MISSING. Barrier.

        LOOK only, once its holders died `max_deliveries` times in a row; ENDED when those who look die too.
        """
        ...

    def launched(self, record_id: str, nonce: str, launch: int, arn: str, wait: float) -> OperationResult:
        """OK, SAME, STOP_IT. `wait`: seconds until the first look; 0 when a stop is marked."""
        ...

    def call_ambiguous(
        self, record_id: str, claim: str, wait: float, reason: str, call_completed: str = ""
    ) -> OperationResult:
        """The call may have taken effect: OK, LOST. `answered="1"`: a 5xx answer, the call itself is over.

        The claim is given up with it: what its holder says later is LOST. `wait`: seconds until the next look.
        """
        ...

    def no_effect(self, record_id: str, claim: str, wait: float, reason: str) -> OperationResult:
        """Throttled or never sent: OK, ENDED, LOST. No launch number and no attempt is consumed."""
        ...

    def refused(self, record_id: str, claim: str, refusal: Refusal) -> OperationResult:
        """A definitive "no": RETRY, ENDED, OK (burnt), LOST.

        Barrier: an end that a fail-over forgot would be launched again, after its owner was told of it.
        """
        ...

    def task_absent(
        self, record_id: str, claim: str, wait: float, advice: str = MANUAL_SEARCH_ADVICE
    ) -> OperationResult:
        """Looked and found nothing: RETRY, ENDED, EARLY, LOST. `wait`: seconds until the next look or launch.

        `why`: the last words of the reason when it ends UNKNOWN: what to do about it.

        EARLY until the claim under which it was looked was itself made after H (`lifecycle.safe_at`). Barrier.
        """
        ...

    def update_tasks(self, updates: Sequence[TaskUpdate]) -> list[OperationResult]:
        """OK, RETRY, ENDED (with the record), STALE, MISSING; one each, in order."""
        ...

    def reschedule_poll(self, waits: Mapping[str, float]) -> None:
        """Records of `due` where a look showed nothing new: id -> seconds until the next look.

        One that has come due since it was popped stays due: a stop was asked for, or the look took too long.
        """
        ...

    def stop(self, ids: Sequence[str], requested_by: str, launch: int = 0) -> list[OperationResult]:
        """ENDED, MARKED, SAME, STALE, each with its record. An unknown id leaves a tombstone: ENDED. Barrier.

        `launch` > 0: only a record LAUNCHED with this number, else STALE, or MISSING for an unknown id.
        """
        ...

    def adopt(self, ids: Sequence[str], owner: str) -> list[OperationResult]:
        """OK or ENDED (terminal, to be delivered again) with the record, or MISSING. Barrier."""
        ...

    def confirm(self, results: Sequence[tuple[str, str]], owner: str) -> list[OperationResult]:
        """(id, nonce) pairs whose results the owner has: OK or NOT_YOURS. Retention starts."""
        ...

    def lease_due(self, limit: int) -> list[Record]:
        """Up to `limit` due LAUNCHING and LAUNCHED records, without their `request`."""
        ...

    def lease_due_retries(self, queue: str, limit: int) -> list[Record]:
        """Up to `limit` QUEUED records of the queue whose delayed retry is due."""
        ...

    def lease_unclaimed(self, queue: str, limit: int) -> list[Record]:
        """Up to `limit` QUEUED records of the queue whose message did not arrive within ring_seconds."""
        ...

    def lease_expired(self, limit: int) -> list[str]:
        """Up to `limit` ids, of any queue, that are past their deadline while QUEUED; `claim` ends them."""
        ...

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """The records as they stand, None for the unknown."""
        ...

    def find_id_by_arn(self, arn: str) -> str | None:
        """The request that a task ARN belongs to, while the task is live."""
        ...

    def list_undelivered(self, owner: str, limit: int) -> list[Record]:
        """Terminal records whose results this owner has not confirmed, oldest first."""
        ...

    def list_records(self, after: str, limit: int) -> tuple[list[Record], str]:
        """Records, newest first: live ones, then finished ones. `after`: "" or the cursor returned last; "" ends."""
        ...

    def count_by_state(self) -> dict[str, dict[State, int]]:
        """queue -> state -> how many: live states as they are now, terminal ones since the namespace began."""
        ...

    def take_tokens(self, bucket: str, want: int, rate: float, burst: int, reserve: int = 0) -> tuple[int, float]:
        """Up to `want` tokens of a token bucket shared by all workers: (granted, seconds until the next one).

        `reserve`: so many tokens stay for others; a negative one may be owed. protocol/token_bucket.py has the rules.
        """
        ...

    def record_throttle(self, bucket: str) -> float:
        """AWS has refused a call of this bucket: the share of the rate that is left, 0 when this lowered nothing."""
        ...

    def pause_queues(self, queues: Sequence[str]) -> None:
        """Let no request of these queues be claimed until they are resumed. Barrier."""
        ...

    def resume_queues(self, queues: Sequence[str]) -> None:
        """Let them be claimed again. Barrier."""
        ...

    def list_paused_queues(self) -> dict[str, float]:
        """The paused queues, and since when."""
        ...

    def record_event_facts(self, facts: Sequence[EventFact]) -> None:
        """Facts about sources of events; of each one the latest time is kept."""
        ...

    def get_event_health(self) -> dict[str, EventHealth]:
        """source -> what is known of its events, for every source that was ever noted."""
        ...

    def poll_soon(self, within: float, limit: int) -> int:
        """Let up to `limit` LAUNCHED records that are due later be looked at within so many seconds, spread; how many.

        Those that are due last come first.
        """
        ...

    def begin_delivery(self, nonce: str) -> int:
        """A request's body is taken in hand: by how many in a row that never called `let_go`, this one included."""
        ...

    def end_delivery(self, nonce: str) -> None:
        """Whoever had the body in hand is alive."""
        ...

    def add_dead_letter(self, dead_letter: DeadLetter) -> None:
        """Keep a message that could not be used, within the bounds of `retention.py`: the oldest go first.

        A key that is there already stays as it is.
        """
        ...

    def list_dead_letters(self, limit: int, before: DeadLetter | None = None) -> list[DeadLetter]:
        """Up to `limit` dead letters, newest first; those older than `before`, which may be gone by now."""
        ...

    def get_dead_letters(self, keys: Sequence[str]) -> list[DeadLetter | None]:
        """The dead letters of these keys, None for the unknown; in order."""
        ...

    def delete_dead_letters(self, keys: Sequence[str]) -> list[bool]:
        """Drop dead letters for good; for each key whether it was there."""
        ...

    def heartbeat(self, info: WorkerInfo, ttl: float) -> None:
        """Say that a worker is alive; forgotten after `ttl` seconds."""
        ...

    def list_workers(self) -> list[WorkerInfo]:
        """The workers that were heard of lately, by name."""
        ...

    def prune(self, limit: int) -> int:
        """Drop up to `limit` index entries of records whose retention is over; how many."""
        ...

    def check_server(self) -> list[str]:
        """What is wrong with the server for this use, as sentences; empty when nothing is."""
        ...

    def close(self) -> None:
        """Give the connections back; the ledger is not used after."""
        ...
