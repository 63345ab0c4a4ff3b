"""The results of calls to Amazon ECS.

Nothing here raises or does I/O. Each call of the gateway returns one of these values, so that the launch protocol
decides on facts ("nothing was started", "unknown") and not on exceptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.protocol.aws_causes import Cause


class RunTaskResultKind(Enum):
    """What one RunTask call proved.

    CAPACITY, ROLE_NOT_USABLE, START_FAILURE, PERMANENT and CONFLICT are definitive refusals of this call. THROTTLED,
    NEVER_SENT and UNUSABLE_PROFILE mean that it had no effect. AMBIGUOUS and ANSWERED_5XX prove nothing.
    """

    STARTED = "started"
    """The task exists under `arn`, even if it has stopped since (the same token returns it again)."""
    THROTTLED = "throttled"
    """Too many calls were made: no effect."""
    NEVER_SENT = "never_sent"
    """The request did not leave this process (call budget over, no connection): no effect."""
    AMBIGUOUS = "ambiguous"
    """Time-out, reset or an empty response: the call may still take effect. The record becomes ambiguous."""
    ANSWERED_5XX = "answered_5xx"
    """A server error: the call has ended, and the same token shows what it did. Not ambiguous."""
    CAPACITY = "capacity"
    """Refused for lack of capacity, or as no instance's agent is connected: consumes no attempt."""
    ROLE_NOT_USABLE = "role_not_usable"
    """Refused because ECS cannot assume a role of the task (yet): consumes no attempt for some minutes."""
    START_FAILURE = "start_failure"
    """Refused because the start failed (unknown failures): consumes an attempt."""
    PERMANENT = "permanent"
    """Refused as malformed, not allowed or unsupported: the same request would fail again."""
    UNUSABLE_PROFILE = "unusable_profile"
    """Credentials, permissions, account, cluster or endpoint are unusable: no effect; opens the target's circuit."""
    CONFLICT = "conflict"
    """The token was used with other arguments; `conflicting_arns` are the tasks that it started."""


@dataclass(frozen=True, slots=True)
class RunTaskResult:
    """The result of one RunTask call.

    Attributes:
        arn: Set exactly if `kind` is STARTED.
        reason: AWS's own text and, if there is one, what to do next.
        error_code: AWS's error code, the failure's reason or the exception's name; "" if none.
        was_sent: False if the request provably never left this process: NEVER_SENT always, UNUSABLE_PROFILE for
            unusable credentials, PERMANENT for arguments that botocore refuses.
        cause: What AWS's words mean; None if AWS did not answer.
    """

    kind: RunTaskResultKind
    arn: str | None = None
    reason: str = ""
    error_code: str = ""
    conflicting_arns: tuple[str, ...] = ()
    was_sent: bool = True
    cause: Cause | None = None


class EcsErrorKind(Enum):
    """Why a call other than RunTask failed, or returned only a part of its result."""

    THROTTLED = "throttled"
    """Too many calls: repeat it later."""
    UNAVAILABLE = "unavailable"
    """Time-out, no connection, a server error or an empty response: repeat it later."""
    UNUSABLE_PROFILE = "unusable_profile"
    """Credentials, account or endpoint are unusable: opens the circuit of the queue's profile."""
    DENIED = "denied"
    """These credentials may not make this call: an operator must grant it."""
    CLUSTER_NOT_FOUND = "cluster_not_found"
    """The cluster does not exist (any more)."""
    TASK_NOT_FOUND = "task_not_found"
    """ECS does not know the task to stop, or not any more."""
    INVALID = "invalid"
    """ECS refuses this call and would refuse it again (one invalid ARN fails a whole batch)."""


@dataclass(frozen=True, slots=True)
class EcsError:
    """The error of a call: `reason` is a sentence, `error_code` is AWS's code or the exception's name."""

    kind: EcsErrorKind
    reason: str
    error_code: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class DescribeTasksResult(PayloadRepr):
    """The result of one DescribeTasks call. An ARN that is in no member was not answered: ask again.

    Attributes:
        tasks: The tasks as ECS shows them (camelCase keys; times are epoch seconds or datetimes, `observe` takes both).
        missing_arns: The ARNs that ECS does not know (not yet, or not any more).
        other_failures: The ARNs for which ECS gave another reason, with the reason.
    """

    tasks: list[dict[str, Any]] = field(default_factory=list)
    missing_arns: list[str] = field(default_factory=list)
    error: EcsError | None = None
    other_failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListTasksResult:
    """The ARNs of all tasks with one startedBy, RUNNING and STOPPED, each once.

    Empty `arns` prove something only if `error` is None. The ARNs that are listed exist in any case. `calls` is the
    number of calls that it took.
    """

    arns: list[str] = field(default_factory=list)
    error: EcsError | None = None
    calls: int = 2


@dataclass(frozen=True, slots=True, repr=False)
class StopTaskResult(PayloadRepr):
    """The result of one StopTask call: the task, if ECS returned one, or the error. Stopping twice is harmless."""

    task: Mapping[str, Any] | None = None
    error: EcsError | None = None
