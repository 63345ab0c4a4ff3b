"""The states of a request and the moves between them, as data; docs/states.md draws the same table."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a request stands. A stop is a field of the record, not a state."""

    QUEUED = "QUEUED"
    """Provably nothing exists on ECS for the present launch number."""
    LAUNCHING = "LAUNCHING"
    """A worker has claimed it: a RunTask call may be under way, or may have taken effect unseen."""
    LAUNCHED = "LAUNCHED"
    """An ECS task exists; its ARN is in the record."""
    SUCCESS = "SUCCESS"
    """The container ran and ended with exit code 0."""
    FAILED = "FAILED"
    """The container ran and failed, or the request can never run; the reason says which."""
    REMOVED = "REMOVED"
    """It never started, and the attempts are used up."""
    REVOKED = "REVOKED"
    """Stopped on request."""
    EXPIRED = "EXPIRED"
    """`expires_at` or the launch deadline passed before it started."""
    UNKNOWN = "UNKNOWN"
    """ECS no longer knows the task, and nobody saw its end."""


LIVE_STATES = frozenset({State.QUEUED, State.LAUNCHING, State.LAUNCHED})
TERMINAL_STATES = frozenset(State) - LIVE_STATES

_QUEUED, _LAUNCHING, _LAUNCHED = State.QUEUED, State.LAUNCHING, State.LAUNCHED

#: operation -> the moves it may make. None stands for "no record". An operation may also leave the state as it is.
TRANSITIONS: dict[str, frozenset[tuple[State | None, State]]] = {
    "put": frozenset({(None, _QUEUED)}),
    "claim": frozenset({(_QUEUED, _LAUNCHING), (_QUEUED, State.EXPIRED)}),  # a stop has ended a QUEUED one before
    "launched": frozenset({(_LAUNCHING, _LAUNCHED), (_QUEUED, _LAUNCHED)}),
    "no_effect": frozenset({(_LAUNCHING, _QUEUED), (_LAUNCHING, State.REVOKED)}),
    "refused": frozenset(
        {(_LAUNCHING, _QUEUED), (_LAUNCHING, State.REVOKED), (_LAUNCHING, State.FAILED), (_LAUNCHING, State.REMOVED)}
    ),
    "task_absent": frozenset(
        {
            (_LAUNCHING, _QUEUED),
            (_LAUNCHING, State.FAILED),
            (_LAUNCHING, State.REVOKED),
            (_LAUNCHING, State.EXPIRED),
            (_LAUNCHING, State.UNKNOWN),
        }
    ),
    "reclaim": frozenset({(_LAUNCHING, State.UNKNOWN)}),
    "update_task": frozenset({(_LAUNCHED, _QUEUED)} | {(_LAUNCHED, end) for end in TERMINAL_STATES}),
    "stop": frozenset({(None, State.REVOKED), (_QUEUED, State.REVOKED)}),
}
