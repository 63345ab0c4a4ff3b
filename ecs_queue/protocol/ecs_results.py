"""What Amazon ECS answered, in this project's own terms.

Nothing here raises or does I/O. Each call of the gateway returns one of these values, so that the launch
protocol decides on facts ("nothing was started", "nobody knows") instead of on exceptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class RunTaskResultKind(Enum):
    """What one RunTask call proved.

    CAPACITY, START_FAILURE, PERMANENT and CONFLICT are a definitive "no" of ECS to this very call. THROTTLED,
    NEVER_SENT and PROFILE say that it had no effect: the same token may be used again. AMBIGUOUS and
    ANSWERED_5XX prove nothing.
    """

    STARTED = "started"
    """The task exists; `arn` names it (also when the same token returned a task that has stopped since)."""
    THROTTLED = "throttled"
    """ECS answered that too many calls were made: no effect."""
    NEVER_SENT = "never_sent"
    """The request did not leave this process (call budget over, no connection): no effect."""
    AMBIGUOUS = "ambiguous"
    """Time-out, reset or an empty answer: the call may still take effect. The record becomes dirty."""
    ANSWERED_5XX = "answered_5xx"
    """ECS answered with a server error: the call has ended, the same token tells what it did. Not dirty."""
    CAPACITY = "capacity"
    """Definitive no, for lack of room: consumes no attempt."""
    START_FAILURE = "start_failure"
    """Definitive no, for a failure of the start itself (AGENT and unknown ones): consumes an attempt."""
    PERMANENT = "permanent"
    """Definitive no: malformed, not allowed or unsupported; the same request will fail again."""
    UNUSABLE_PROFILE = "unusable_profile"
    """Credentials, account, cluster or endpoint are unusable: no effect; opens the profile's circuit."""
    CONFLICT = "conflict"
    """The token was used with other arguments; `conflicting` has the ARNs of the tasks that it started."""


@dataclass(frozen=True, slots=True)
class RunTaskResult:
    """One RunTask call's answer.

    `arn` is set exactly when `kind` is STARTED. `reason` is a sentence with AWS's own words and, where there
    is one, the next step. `code` is AWS's error code, the failure's reason or the exception's name ("" if
    none). `sent` is False when the request provably never left this process: NEVER_SENT always, PROFILE for
    unusable credentials, PERMANENT for arguments that botocore itself refuses.
    """

    kind: RunTaskResultKind
    arn: str | None = None
    reason: str = ""
    error_code: str = ""
    conflicting_arns: tuple[str, ...] = ()
    was_sent: bool = True


class ReadErrorKind(Enum):
    """Why a read (DescribeTasks, ListTasks, DescribeClusters) gave no or only a part of an answer."""

    THROTTLED = "throttled"
    """Too many calls: ask again later."""
    UNAVAILABLE = "unavailable"
    """Time-out, no connection, server error or an empty answer: ask again later."""
    UNUSABLE_PROFILE = "unusable_profile"
    """Credentials, account or endpoint are unusable: opens the profile's circuit."""
    DENIED = "denied"
    """These credentials may not make this call: somebody has to grant it."""
    CLUSTER_NOT_FOUND = "cluster_not_found"
    """The cluster does not exist (any more)."""
    INVALID = "invalid"
    """ECS refuses this very question; it will refuse it again (one bad ARN spoils a batch)."""


@dataclass(frozen=True, slots=True)
class ReadError:
    """Why a read failed: `reason` is a sentence, `code` AWS's error code or the exception's name."""

    kind: ReadErrorKind
    reason: str
    error_code: str = ""


@dataclass(frozen=True, slots=True)
class DescribeTasksResult:
    """One DescribeTasks call's answer.

    `tasks` has the tasks as ECS shows them (camelCase keys; times are epoch seconds or datetimes, `observe`
    takes both), `missing` the ARNs that ECS does not know (not yet, or not any more), `other` the ARNs for
    which it gave another reason, with that. An ARN that is in none of them was not answered: ask again.
    """

    tasks: list[dict[str, Any]] = field(default_factory=list)
    missing_arns: list[str] = field(default_factory=list)
    error: ReadError | None = None
    other_failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListTasksResult:
    """The ARNs of all tasks with one startedBy, RUNNING and STOPPED, each once.

    An empty `arns` proves something only when `trouble` is None; the ARNs that are there exist anyway.
    """

    arns: list[str] = field(default_factory=list)
    error: ReadError | None = None


class StopTaskResultKind(Enum):
    """What one StopTask call proved."""

    OK = "ok"
    """ECS took the order (also for a task that had already stopped)."""
    TASK_NOT_FOUND = "task_not_found"
    """ECS knows no such task (any more)."""
    THROTTLED = "throttled"
    """Too many calls: order it again later."""
    UNAVAILABLE = "unavailable"
    """Time-out, no connection or server error: order it again, stopping twice is harmless."""
    UNUSABLE_PROFILE = "unusable_profile"
    """Credentials, account or endpoint are unusable: opens the profile's circuit."""
    DENIED = "denied"
    """These credentials may not stop tasks: grant ecs:StopTask."""
    INVALID = "invalid"
    """ECS refuses this very order; it will refuse it again."""


@dataclass(frozen=True, slots=True)
class StopTaskResult:
    """One StopTask call's answer; `task` is the task as ECS shows it when it answered with one."""

    kind: StopTaskResultKind
    reason: str = ""
    error_code: str = ""
    task: Mapping[str, Any] | None = None
