"""The arguments and results of the ledger's operations (docs/protocol.md)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.runs import RunEnd
from ecs_queue.protocol.states import State

#: In place of a launch number, for a stop: only a record that is QUEUED is stopped.
ONLY_QUEUED = -1


class ResultCode(StrEnum):
    """The result of an operation."""

    CREATED = "created"
    UNCHANGED = "unchanged"
    """The record holds this already."""
    CONFLICT = "conflict"
    """Another request has this id."""
    TOO_LATE = "too_late"
    """The request arrived after its accept_until."""
    RUN_TASK = "run_task"
    """Call RunTask with the record's client token, frozen arguments and target."""
    LIST_TASKS = "list_tasks"
    """Do not call RunTask; list the tasks that this launch started."""
    LIMIT_REACHED = "limit_reached"
    """max_in_flight of the namespace or of the queue, or the queue's max_starting is reached; the record waits."""
    KEY_FULL = "key_full"
    """The queue's max_per_key is reached for the record's concurrency key; the record waits for its turn."""
    PAUSED = "paused"
    """The queue is paused; the record waits."""
    NOT_CLAIMABLE = "not_claimable"
    """The record is not in the state that the operation starts from (another worker changed it), or it is not due."""
    ENDED = "ended"
    """The record has reached its terminal state; its result must be published."""
    OK = "ok"
    REQUEUED = "requeued"
    """Queued again with the next launch number."""
    CLAIM_LOST = "claim_lost"
    """The caller no longer holds the claim; nothing was written."""
    UNWANTED = "unwanted"
    """The task does not belong to the current launch of the record: stop it, at best effort."""
    TOO_EARLY = "too_early"
    """An empty list proves nothing yet."""
    STALE = "stale"
    """The record has newer facts; nothing was written."""
    NOT_FOUND = "not_found"
    """No such record."""
    NOT_OWNER = "not_owner"
    """The result belongs to another owner or to another submission."""
    STOP_REQUESTED = "stop_requested"
    """The live record is marked; a worker carries the stop out."""
    ASSIGNED = "assigned"
    """A warm runner has the request: nothing is to be called."""
    NO_RUNNER = "no_runner"
    """No warm runner is idle, and the claim was not to call RunTask; nothing was written."""
    END_UNREAD = "end_unread"
    """Its runner has reported another end than the one that was named, or the record has retry rules that the caller
    does not know: read the run, and settle again."""
    DESCRIBE_TASK = "describe_task"
    """Its runner is silent, or has not bound the run yet: ask ECS for the task."""
    STOP_TASK = "stop_task"
    """Its runner did not end the command in time, and is closed: stop its task."""
    BROKEN = "broken"
    """The record cannot be used; it stands in the list of broken items, and nothing was written."""


class OperationResult(msgspec.Struct, frozen=True):
    """The result code and, where the caller has a use for it, the record after the operation.

    `at` is when the ledger noted a launch, by its clock; 0 for other operations and results.
    """

    code: ResultCode
    record: Record | None = None
    at: float = 0.0


class ClaimRequest(PayloadRepr, msgspec.Struct, frozen=True, kw_only=True):
    """What a worker hands to a claim.

    Attributes:
        claim: A new random claim token.
        args: The RunTask arguments that the worker would send; frozen in the record unless it holds some already.
        container_name, max_attempts, spec_version: Properties of `args`, stored beside them for following the task.
        queue_limit: Maximum number of tasks in flight of the record's queue; 0: no limit.
        nonce, launch: The only submission and launch that signed or sealed `args` may be frozen for; "" and 0: any.
        pool: The pool whose runners may take the request; "": it gets a task of its own.
        payload: What a runner is to start.
        may_call: Whether to claim for a RunTask call if no runner is idle.
        start_timeout: Seconds that the task of a RunTask call has to start; 0: no limit.
        retry_rules: The rules that decide about failed attempts, as JSON; "": the relaunch policy alone.
        max_starting: Maximum number of tasks of the record's queue between launch and RUNNING; 0: no limit. It does not
            concern a request that gets an idle runner.
        variant: On which variant of its capacity the queue launches now, from 1 on; 0: it has only one.
        variant_reason: Why it is not the first one.
        key_limit: Maximum number of requests in flight of the record's queue and concurrency key; 0: no limit.
    """

    claim: str
    worker: str
    args: str
    target: str
    container_name: str = ""
    max_attempts: int = 0
    spec_version: int = 0
    queue_limit: int = 0
    nonce: str = ""
    launch: int = 0
    pool: str = ""
    payload: str = ""
    may_call: bool = True
    start_timeout: float = 0.0
    retry_rules: str = ""
    max_starting: int = 0
    variant: int = 0
    variant_reason: str = ""
    key_limit: int = 0


class InFlightCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What limits a claim.

    Attributes:
        total, queue: Tasks in flight in the namespace, and in the record's queue.
        starting: Those of the queue that count for its `max_starting`.
        paused: Whether the queue is paused.
    """

    total: int = 0
    queue: int = 0
    starting: int = 0
    paused: bool = False


class RefusalKind(StrEnum):
    """What a definitive refusal of RunTask consumes."""

    CAPACITY = "capacity"  # no attempt
    GIVEN_BACK = "given_back"  # no attempt; proves nothing about an earlier call: not even that the target is right
    START_FAILURE = "start_failure"  # an attempt
    PERMANENT = "permanent"  # the request


class TaskUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What ECS showed of a task.

    Attributes:
        version, last_status: As ECS showed them; they order updates. For an end that was not observed (UNKNOWN), those
            of the record, so that any later fact is preferred to it.
        wait: Seconds until the next poll, or until the next launch.
        end_state: None while the task runs; else the state that the request would get.
        may_relaunch: Whether the retry rules, or else the relaunch policy, allow another attempt.
        stopped_by_user: Whether ECS says that StopTask ended the task.
        counts_attempt: Whether a relaunch uses an attempt: not after a task that never started for lack of capacity,
            nor if a retry rule says so.
    """

    id: str
    launch: int
    arn: str
    version: int
    last_status: str
    wait: float
    started_at: float = 0.0
    end_state: State | None = None
    may_relaunch: bool = False
    stopped_by_user: bool = False
    max_attempts: int = 1
    finished_at: float = 0.0
    exit_code: int | None = None
    stop_code: str = ""
    reason: str = ""
    counts_attempt: bool = True


class EndRuling(StrEnum):
    """What a record's retry rules say of the end that its runner has reported."""

    UNKNOWN = ""
    RETRY = "retry"
    RETRY_UNCOUNTED = "retry_uncounted"
    FAIL = "fail"


class SettleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A record with a run, to be brought in line with it.

    Attributes:
        end: The end that the caller has read in the run; None if there was none.
        is_verified: Whether its MAC is right. One that is not counts as not reported.
        wait: Seconds until the next launch, should the policy relaunch the request.
        ruling: What the record's retry rules say of this end; "" if the caller does not know them.
    """

    id: str
    end: RunEnd | None = None
    is_verified: bool = False
    wait: float = 0.0
    ruling: EndRuling = EndRuling.UNKNOWN


class RunnerTask(msgspec.Struct, frozen=True):
    """An ECS task that a launch has started as a runner: the name of that launch, and the task."""

    name: str
    arn: str
