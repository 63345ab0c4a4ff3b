"""The states of a request and its transitions, as data; docs/states.md draws the same table."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """The state of a request. A stop is a field of the record, not a state."""

    QUEUED = "QUEUED"
    """No task exists on ECS for the current launch number; this is proven."""
    LAUNCHING = "LAUNCHING"
    """A worker has claimed it: a RunTask call may be in progress, or may have started a task not recorded yet."""
    LAUNCHED = "LAUNCHED"
    """An ECS task exists; its ARN is in the record."""
    SUCCESS = "SUCCESS"
    """The container ran and ended with exit code 0."""
    FAILED = "FAILED"
    """The container ran and failed, or the request can never run; the reason says which."""
    REMOVED = "REMOVED"
    """It never started, and no attempt is left."""
    REVOKED = "REVOKED"
    """Stopped on request."""
    EXPIRED = "EXPIRED"
    """`expires_at` or the launch deadline passed before it started."""
    UNKNOWN = "UNKNOWN"
    """ECS no longer knows the task, and its end was not observed."""


LIVE_STATES = frozenset({State.QUEUED, State.LAUNCHING, State.LAUNCHED})
TERMINAL_STATES = frozenset(State) - LIVE_STATES

_QUEUED, _LAUNCHING, _LAUNCHED = State.QUEUED, State.LAUNCHING, State.LAUNCHED


def _from(start: State | None, *ends: State) -> frozenset[tuple[State | None, State]]:
    return frozenset((start, end) for end in ends)


#: operation -> its transitions. None stands for "no record". An operation may also leave the state unchanged.
TRANSITIONS: dict[str, frozenset[tuple[State | None, State]]] = {
    "put": _from(None, _QUEUED),
    "claim": _from(_QUEUED, _LAUNCHING, _LAUNCHED, State.EXPIRED),  # a stopped record is never QUEUED
    "launched": frozenset({(_LAUNCHING, _LAUNCHED), (_QUEUED, _LAUNCHED)}),
    "no_effect": _from(_LAUNCHING, _QUEUED, _LAUNCHED, State.REVOKED),
    "refused": _from(_LAUNCHING, _QUEUED, _LAUNCHED, State.REVOKED, State.FAILED, State.REMOVED),
    "task_absent": _from(_LAUNCHING, _QUEUED, State.FAILED, State.REVOKED, State.EXPIRED, State.UNKNOWN),
    "reclaim": _from(_LAUNCHING, _QUEUED, _LAUNCHED, State.FAILED, State.REVOKED, State.EXPIRED, State.UNKNOWN),
    "update_task": _from(_LAUNCHED, _QUEUED, *TERMINAL_STATES),
    "update_runner_task": _from(_LAUNCHED, _QUEUED, State.FAILED, State.REMOVED, State.REVOKED, State.UNKNOWN),
    "settle": _from(_LAUNCHING, _LAUNCHED, State.SUCCESS, State.FAILED, State.REVOKED, State.EXPIRED, _QUEUED)
    | _from(_LAUNCHED, State.SUCCESS, State.FAILED, State.REMOVED, State.REVOKED, State.EXPIRED, _QUEUED),
    "put_back": _from(_LAUNCHING, _QUEUED) | _from(_LAUNCHED, _QUEUED),
    "stop": frozenset({(None, State.REVOKED), (_QUEUED, State.REVOKED)})
    | _from(_LAUNCHING, State.REVOKED)
    | _from(_LAUNCHED, State.REVOKED, State.EXPIRED),
}
