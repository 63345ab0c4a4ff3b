"""The ledger: the shared truth about every request. `Ledger` is the union of the roles below (docs/protocol.md).

There are two implementations (memory, Redis) and one conformance suite. Each operation is atomic and uses the ledger's
own clock. An operation may run twice when its reply is lost: claims are held by random tokens and every other write is
a compare-and-set, so the second run finds that the record has moved on. Every method may raise `LedgerUnavailable` or
`MissingRight`; then its effect is unknown.

A live record stands in exactly one of three indexes, scored with the time of its next check:

- `unclaimed:<queue>`: QUEUED, and no worker has claimed it yet. Its message is on its way, or lost.
- `retry:<queue>`: QUEUED with a `not_before`: a delayed retry. No message carries it.
- `due`: LAUNCHING and LAUNCHED. The lease ends, or the task must be described.

In addition, a QUEUED record with a deadline stands in `expiry`. Leasing a record from an index sets its time to now +
lease, so when a worker dies, another one takes the record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ecs_queue.findings import Finding
from ecs_queue.ledger.contracts import contract
from ecs_queue.ledger.entries import DeadLetter as DeadLetter
from ecs_queue.ledger.entries import WorkerInfo as WorkerInfo
from ecs_queue.ledger.entry_operations import BrokenItems as BrokenItems
from ecs_queue.ledger.entry_operations import CapacityStates as CapacityStates
from ecs_queue.ledger.entry_operations import DeadLetters as DeadLetters
from ecs_queue.ledger.entry_operations import WorkerRegistry as WorkerRegistry
from ecs_queue.ledger.run_operations import RunOperations as RunOperations
from ecs_queue.ledger.run_operations import WarmPools as WarmPools
from ecs_queue.protocol.concurrency_keys import KeyCounts
from ecs_queue.protocol.event_health import EventFact, EventHealth
from ecs_queue.protocol.operations import ClaimRequest, OperationResult, RefusalKind, TaskUpdate
from ecs_queue.protocol.reasons import MANUAL_SEARCH_ADVICE
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.protocol.states import State
from ecs_queue.server_users import ServerUser


class RequestOperations(Protocol):
    """The operations that change one record."""

    @contract("CREATED UNCHANGED CONFLICT TOO_LATE ENDED BROKEN")
    def put(self, submissions: Sequence[Submission]) -> list[OperationResult]:
        """Create the records that do not exist yet.

        Returns:
            One result each, in order. ENDED: a stop came before the request; publish its result.
        """
        ...

    @contract(
        "CREATED UNCHANGED CONFLICT TOO_LATE ENDED RUN_TASK ASSIGNED NO_RUNNER LIMIT_REACHED KEY_FULL PAUSED "
        "NOT_CLAIMABLE NOT_FOUND BROKEN",
        barrier=True,
    )
    def put_and_claim(
        self, submission: Submission, claim_request: ClaimRequest
    ) -> tuple[OperationResult, OperationResult]:
        """`put`, then `claim` if the record is of this very request, in one atomic step.

        Returns:
            The results of both. The claim's is NOT_CLAIMABLE after CONFLICT and ENDED, NOT_FOUND after TOO_LATE. After
            CREATED and UNCHANGED the first result has no record.
        """
        ...

    @contract(
        "RUN_TASK ASSIGNED NO_RUNNER ENDED LIMIT_REACHED KEY_FULL PAUSED NOT_CLAIMABLE NOT_FOUND BROKEN", barrier=True
    )
    def claim(self, record_id: str, claim_request: ClaimRequest | None) -> OperationResult:
        """Claim a QUEUED record for an idle runner of its pool, if it names one, else for one RunTask call.

        Without a claim request only an expired record is ended.
        """
        ...

    @contract("RUN_TASK LIST_TASKS REQUEUED ENDED NOT_CLAIMABLE NOT_FOUND BROKEN", barrier=True)
    def reclaim(self, record_id: str, claim_request: ClaimRequest) -> OperationResult:
        """Take over a LAUNCHING record whose lease is over.

        Returns:
            LIST_TASKS in place of RUN_TASK, once its holders died `max_deliveries` times in a row, a stop is requested,
            a refusal retired the launch number, its time to start is over, or 40 minutes have passed since the first
            call. ENDED when the workers that list its tasks die too. Of a launch that is to start a runner nothing is
            listed: REQUEUED or ENDED.
        """
        ...

    @contract("OK UNCHANGED UNWANTED BROKEN")
    def launched(self, record_id: str, nonce: str, launch: int, arn: str, wait: float) -> OperationResult:
        """Record the task of a launch. It is due in `wait` seconds, at once when a stop is requested.

        OK comes with the time `at` which it was recorded.
        """
        ...

    @contract("OK CLAIM_LOST BROKEN")
    def call_ambiguous(
        self, record_id: str, claim: str, wait: float, reason: str, call_completed: bool = False
    ) -> OperationResult:
        """Record a call that may have taken effect, and release the claim: a later write under it is CLAIM_LOST.

        Args:
            record_id: The request.
            claim: The caller's claim token.
            wait: Seconds until the record is due.
            reason: What happened.
            call_completed: Whether ECS answered with a 5xx, so the call itself cannot act later.
        """
        ...

    @contract("OK ENDED CLAIM_LOST BROKEN")
    def no_effect(self, record_id: str, claim: str, wait: float, reason: str) -> OperationResult:
        """Record a call that was throttled or never sent. It consumes no launch number and no attempt."""
        ...

    @contract("OK REQUEUED ENDED CLAIM_LOST BROKEN", barrier=True)
    def refused(
        self, record_id: str, claim: str, kind: RefusalKind, wait: float, reason: str, max_attempts: int
    ) -> OperationResult:
        """Record a call that ECS definitively refused. OK: the launch was ambiguous, so its number is retired.

        The barrier keeps a fail-over from forgetting an end that the owner was already informed of.
        """
        ...

    @contract("REQUEUED ENDED TOO_EARLY CLAIM_LOST BROKEN", barrier=True)
    def task_absent(
        self, record_id: str, claim: str, wait: float, advice: str = MANUAL_SEARCH_ADVICE
    ) -> OperationResult:
        """Record that ListTasks showed no task of this launch.

        Args:
            record_id: The request.
            claim: The caller's claim token.
            wait: Seconds until the next list, or the next launch.
            advice: The end of the reason when the record ends UNKNOWN: what to do next.

        Returns:
            TOO_EARLY until the claim itself was made after `launch_reports.absence_provable_at`.
        """
        ...

    @contract("OK REQUEUED ENDED STALE NOT_FOUND BROKEN")
    def update_tasks(self, updates: Sequence[TaskUpdate]) -> list[OperationResult]:
        """Record what was observed of tasks. One result each, in order; REQUEUED and ENDED with the record."""
        ...

    @contract("ENDED STOP_REQUESTED UNCHANGED STALE NOT_FOUND BROKEN", barrier=True)
    def stop(self, ids: Sequence[str], requested_by: str, launch: int = 0) -> list[OperationResult]:
        """Request a stop. An unknown id leaves a tombstone: ENDED. Each result has its record.

        Args:
            ids: The requests.
            requested_by: Who asks; it becomes part of the reason.
            launch: If > 0, stop only a record that is LAUNCHED with this number; if ONLY_QUEUED, only one that is
                QUEUED. Else STALE, or NOT_FOUND for an unknown id.
        """
        ...

    @contract("OK ENDED NOT_FOUND BROKEN", barrier=True)
    def adopt(self, ids: Sequence[str], owner: str) -> list[OperationResult]:
        """Deliver the results of these requests to `owner` from now on. ENDED: delivered again. With the record."""
        ...

    @contract("OK NOT_OWNER BROKEN")
    def confirm(self, results: Sequence[tuple[str, str]], owner: str) -> list[OperationResult]:
        """Record that the owner has the results of these (id, nonce) pairs. Retention starts."""
        ...


class RequestSchedule(Protocol):
    """The indexes of what is due. What is leased from them is due again after the lease."""

    def lease_due(self, limit: int) -> list[Record]:
        """Return up to `limit` due LAUNCHING and LAUNCHED records, without their `request`."""
        ...

    def lease_due_retries(self, queue: str, limit: int) -> list[Record]:
        """Return up to `limit` QUEUED records of the queue whose delayed retry is due."""
        ...

    def lease_unclaimed(self, queue: str, limit: int) -> list[Record]:
        """Return up to `limit` QUEUED records of the queue whose message did not arrive in `sweep_after_seconds`."""
        ...

    def lease_expired(self, limit: int) -> list[str]:
        """Return up to `limit` ids, of any queue, that passed their deadline while QUEUED; `claim` ends them."""
        ...

    def reschedule_poll(self, waits: Mapping[str, float]) -> None:
        """Set when records of `due` are polled next: id -> seconds.

        A record that has come due since it was leased stays due: a stop was requested, or the poll took too long.
        """
        ...

    def poll_soon(self, within: float, limit: int) -> int:
        """Spread up to `limit` LAUNCHED records that are due later over the next `within` seconds; return how many.

        The records that are due last come first.
        """
        ...

    def prune(self, limit: int) -> int:
        """Drop up to `limit` index entries of records whose retention is over, and return how many.

        Dead letters beyond their bounds are dropped as well.
        """
        ...


class RequestReader(Protocol):
    """Queries about requests."""

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """Return the records without their payloads, None for an unknown id, in order."""
        ...

    def get_with_payload(self, ids: Sequence[str]) -> list[Record | None]:
        """Return the records with `request` and `args`, None for an unknown id, in order.

        Not for display: a user of the server may have the right to read records without the right to read payloads.
        """
        ...

    def find_id_by_arn(self, arn: str) -> str | None:
        """Return the id of the request that a task ARN belongs to, while the task is live."""
        ...

    def list_undelivered(self, owner: str, limit: int) -> list[Record]:
        """Return terminal records whose results this owner has not confirmed, oldest first."""
        ...

    def list_records(self, after: str, limit: int) -> tuple[list[Record], str]:
        """Return a page of records, live ones first, newest first, then finished ones; and the next cursor.

        Of the finished ones come first those that are kept longest: results that their owners have not confirmed.
        `after` is the cursor that was returned last, "" at the start. A returned "" means that there is no more.

        Raises:
            UsageError: `after` is no cursor.
        """
        ...

    def count_by_state(self) -> dict[str, dict[State, int]]:
        """Return queue -> state -> number: live states as they are now, terminal ones since the namespace began."""
        ...

    def find_oldest_queued(self, queues: Sequence[str]) -> dict[str, float]:
        """Return since when a request of these queues waits that waits longest; queues without one are left out.

        Of each queue the request counts that is looked at next: usually the oldest one, never a launched one. A delayed
        request waits from its time on.
        """
        ...

    def count_starting(self, queues: Sequence[str]) -> dict[str, int]:
        """Return how many tasks of each of these queues count for its `max_starting`.

        A task counts from a claim that named the limit until it runs or ends.
        """
        ...

    def count_waiting_for_keys(self, queues: Sequence[str]) -> dict[str, int]:
        """Return how many requests of each of these queues wait because their concurrency key is full."""
        ...

    def count_of_key(self, queue: str, key: str) -> KeyCounts:
        """Return how many requests of the queue with this concurrency key are in flight, and how many wait for it."""
        ...

    def count_delayed(self, queues: Sequence[str]) -> dict[str, int]:
        """Return how many QUEUED requests of each of these queues were submitted for a time that has not come."""
        ...


class DeliveryCounts(Protocol):
    """Deliveries of request bodies that no worker has completed: what finds a poison message before its claim."""

    def begin_delivery(self, nonce: str, delivery: str) -> int:
        """Count a delivery of a request's body; return how many in a row did not end, this one included.

        `delivery` is random: when the call is repeated, it counts once.
        """
        ...

    def end_delivery(self, nonce: str) -> None:
        """Reset the count: the worker that had the body is alive."""
        ...


class TokenBuckets(Protocol):
    """Token buckets shared by all workers; ecs_queue/protocol/token_bucket.py has the rules."""

    def take_tokens(self, bucket: str, want: int, rate: float, burst: int, reserve: int = 0) -> tuple[int, float]:
        """Take up to `want` tokens.

        `reserve` tokens stay in the bucket for other callers; a negative reserve is a debt the caller may run up.

        Returns:
            The number granted, and the seconds until the next token.
        """
        ...

    def record_throttle(self, bucket: str) -> float:
        """Record a throttled call. Return the share of the rate that is left, 0 when it lowered nothing."""
        ...


class QueueControl(Protocol):
    """Pausing of queues."""

    @contract(barrier=True)
    def pause_queues(self, queues: Sequence[str]) -> None:
        """Let no request of these queues be claimed until they are resumed."""
        ...

    @contract(barrier=True)
    def resume_queues(self, queues: Sequence[str]) -> None:
        """Let requests of these queues be claimed again."""
        ...

    def list_paused_queues(self) -> dict[str, float]:
        """Return the paused queues and since when (seconds since the epoch)."""
        ...


class EventHealthStore(Protocol):
    """What is known about the sources of ECS events; ecs_queue/protocol/event_health.py has the rules."""

    def record_event_facts(self, facts: Sequence[EventFact]) -> None:
        """Record facts about sources of events. The latest time of each fact is kept."""
        ...

    def get_event_health(self) -> dict[str, EventHealth]:
        """Return source -> event health, for every source that was ever recorded."""
        ...


class LedgerServer(Protocol):
    """The server behind a ledger."""

    def now(self) -> float:
        """Return the ledger's clock, in seconds since the epoch."""
        ...

    def check_server(self, user: ServerUser = ServerUser.WORKER, durability: str = "") -> list[Finding]:
        """Return what is found about the server, for the caller to act by level (`findings.require_usable`).

        Args:
            user: Whose rights to check.
            durability: What the server must be capable of; "" for the durability of this ledger.

        Raises:
            MissingRight: This user may not even run the ledger's script.
        """
        ...

    def close(self) -> None:
        """Close the connections. The ledger must not be used afterwards."""
        ...


class Ledger(
    RequestOperations,
    RunOperations,
    RequestSchedule,
    RequestReader,
    WarmPools,
    DeliveryCounts,
    TokenBuckets,
    CapacityStates,
    QueueControl,
    EventHealthStore,
    DeadLetters,
    WorkerRegistry,
    BrokenItems,
    LedgerServer,
    Protocol,
):
    """All roles of the ledger. See the module's docstring for what every operation guarantees."""
