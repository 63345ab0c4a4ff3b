"""The vocabulary of the launch protocol: what its operations are given and what they answer (PROTOCOL.md)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State


class ResultCode(StrEnum):
    """What an operation answers."""

    CREATED = "created"
    UNCHANGED = "unchanged"
    CONFLICT = "conflict"
    TOO_LATE = "too_late"
    RUN_TASK = "run_task"
    """Call RunTask with the record's token, frozen arguments and target."""
    LIST_TASKS = "list_tasks"
    """Do not call; list the tasks started by this launch."""
    LIMIT_REACHED = "limit_reached"
    """max_in_flight of the namespace or of the queue is reached; the record waits."""
    PAUSED = "paused"
    """The queue is paused; the record waits."""
    NOT_CLAIMABLE = "not_claimable"
    """Not in the state this operation starts from: somebody else has taken it further, or it is not due."""
    ENDED = "ended"
    """The operation has brought the record to its terminal state; its result must be published."""
    OK = "ok"
    REQUEUED = "requeued"
    """Queued again with the next launch number."""
    CLAIM_LOST = "claim_lost"
    """The claim is not held any more; what the caller knows must not be written."""
    UNWANTED = "unwanted"
    """The task belongs to no present launch of the record: stop it, at best effort."""
    TOO_EARLY = "too_early"
    STALE = "stale"
    NOT_FOUND = "not_found"
    """No such record."""
    NOT_OWNER = "not_owner"
    STOP_REQUESTED = "stop_requested"
    """A stop is noted on the live record; a worker carries it out."""


class OperationResult(msgspec.Struct, frozen=True):
    """A word, and the record after the operation where the caller has a use for it."""

    code: ResultCode
    record: Record | None = None


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker brings to a claim: a fresh random token and what it would send, frozen if nothing is yet.

    `container_name`, `max_attempts`, `spec_version`: of `args`, stored beside them for what follows the task.
    `queue_limit`: how many tasks the record's queue may have in flight; 0: no limit.
    `nonce`, `launch`: the only ones that `args` may be frozen for, when they are signed or sealed; "" and 0: any.
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


class InFlightCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim finds around its record: tasks in flight in the namespace and in the queue, and its pause."""

    total: int = 0
    queue: int = 0
    paused: bool = False


class RefusalKind(StrEnum):
    """What a definitive "no" of ECS costs."""

    CAPACITY = "capacity"  # no attempt
    START_FAILURE = "start_failure"  # an attempt
    PERMANENT = "permanent"  # the request


class TaskUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at an ECS task showed. `wait`: seconds until the next look, or until the retry.

    `end` is None while it runs; else the state it would get, and `retry` whether the policy allows another attempt.
    `by_user`: ECS says that StopTask ended it. `version`: ECS's own; for an end that nobody saw (UNKNOWN) the record's
    version + 1, so that it loses against any newer word.
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
