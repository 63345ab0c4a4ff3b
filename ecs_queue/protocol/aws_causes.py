"""What AWS's words can mean, whose trouble each meaning is, and what follows it; `aws_reasons` has the words."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum


class Cause(StrEnum):
    """What AWS's words mean, whatever the operation and the channel."""

    THROTTLED = "throttled"
    SERVER_ERROR = "server error"
    """AWS itself has ended the call with a server error."""
    INTERMEDIARY = "intermediary"
    """A proxy or load balancer answered instead of ECS: the call itself may still be under way."""
    CAPACITY = "no capacity"
    EC2_ERROR = "EC2 error"
    """A server error or time-out of Amazon EC2, which ECS asks about subnets and network interfaces."""
    AGENT = "agent disconnected"
    ROLE_NOT_USABLE = "role not usable yet"
    """ECS cannot assume a role of the task: it is new, or its trust policy is wrong."""
    START_FAILURE = "start failure"
    INTERRUPTED = "interrupted"
    """The host of the task was lost."""
    PROFILE = "profile unusable"
    CLUSTER_NOT_FOUND = "cluster missing"
    """The cluster does not exist or is being deleted."""
    PROVIDER_NOT_FOUND = "capacity provider missing"
    """The capacity provider does not exist, or not in this cluster."""
    DENIED = "worker denied"
    """These credentials may not make this call."""
    ROLE_DENIED = "role denied"
    """These credentials may not pass the task's role or its execution role."""
    TAGS_DENIED = "tags denied"
    """These credentials may not set the task's tags."""
    TASK_NOT_FOUND = "task missing"
    CONFLICT = "conflict"
    REFUSED = "invalid request"
    """Any other definitive refusal."""


class Channel(StrEnum):
    """How AWS's words arrive."""

    ERROR = "error"
    """The error of a call: a code and a message."""
    FAILURE = "failure"
    """An entry of RunTask's `failures`."""
    STOP = "stop"
    """Of a stopped task: its stop code, its stoppedReason, or the reason of a container."""


class Trouble(StrEnum):
    """Whose trouble a cause is: who can correct it."""

    REQUEST = "request"
    PROFILE = "profile"
    WORKER = "worker"
    ACCOUNT = "account"
    """AWS or the account: it passes by itself, or with more capacity or a higher quota."""


class Consequence(StrEnum):
    """What follows a cause."""

    FAIL = "fail"
    USE_ATTEMPT = "use an attempt"
    """Launch again while attempts are left."""
    WAIT = "wait"
    """Launch again later, with the next launch number and without using an attempt."""
    WAIT_THEN_FAIL = "wait, then fail"
    """Wait for some minutes, in which AWS may come to know the role."""
    SLOW_DOWN = "slow down"
    """Wait, and call less often."""
    OPEN_CIRCUIT = "open the circuit"
    """Give the request back, and stop calling this target for this queue for a while."""
    FIND_OUT = "find out"
    """Whether a task was started has to be found out."""
    RELAUNCH_POLICY = "relaunch policy"
    """The request's own policy decides."""


#: Which part of its own `executor_config` makes a cause the request's own trouble.
_CHOICES = {Cause.ROLE_DENIED: "role", Cause.TAGS_DENIED: "tags", Cause.PROVIDER_NOT_FOUND: "capacity"}

_TROUBLES = {
    Cause.THROTTLED: Trouble.ACCOUNT,
    Cause.SERVER_ERROR: Trouble.ACCOUNT,
    Cause.INTERMEDIARY: Trouble.ACCOUNT,
    Cause.CAPACITY: Trouble.ACCOUNT,
    Cause.EC2_ERROR: Trouble.ACCOUNT,
    Cause.AGENT: Trouble.ACCOUNT,
    Cause.ROLE_NOT_USABLE: Trouble.REQUEST,
    Cause.START_FAILURE: Trouble.REQUEST,
    Cause.INTERRUPTED: Trouble.ACCOUNT,
    Cause.PROFILE: Trouble.PROFILE,
    Cause.CLUSTER_NOT_FOUND: Trouble.PROFILE,
    Cause.PROVIDER_NOT_FOUND: Trouble.PROFILE,
    Cause.DENIED: Trouble.WORKER,
    Cause.ROLE_DENIED: Trouble.WORKER,
    Cause.TAGS_DENIED: Trouble.WORKER,
    Cause.TASK_NOT_FOUND: Trouble.REQUEST,
    Cause.CONFLICT: Trouble.REQUEST,
    Cause.REFUSED: Trouble.REQUEST,
}
_CONSEQUENCES = {
    Cause.THROTTLED: Consequence.SLOW_DOWN,
    Cause.SERVER_ERROR: Consequence.FIND_OUT,
    Cause.INTERMEDIARY: Consequence.FIND_OUT,
    Cause.CAPACITY: Consequence.WAIT,
    Cause.EC2_ERROR: Consequence.WAIT,
    Cause.AGENT: Consequence.WAIT,
    Cause.ROLE_NOT_USABLE: Consequence.WAIT_THEN_FAIL,
    Cause.START_FAILURE: Consequence.USE_ATTEMPT,
    Cause.INTERRUPTED: Consequence.RELAUNCH_POLICY,
    Cause.CONFLICT: Consequence.FIND_OUT,
}


def whose_trouble(cause: Cause, chosen: Collection[str] = ()) -> Trouble:
    """Return whose trouble a cause is.

    Args:
        cause: What AWS's words mean.
        chosen: What the request itself chose in its `executor_config`: "role", "tags", "capacity".
    """
    return Trouble.REQUEST if _CHOICES.get(cause) in chosen else _TROUBLES[cause]


def what_follows(cause: Cause, chosen: Collection[str] = ()) -> Consequence:
    """Return what follows a cause; the arguments are those of `whose_trouble`."""
    if whose_trouble(cause, chosen) in (Trouble.PROFILE, Trouble.WORKER):
        return Consequence.OPEN_CIRCUIT
    return _CONSEQUENCES.get(cause, Consequence.FAIL)
