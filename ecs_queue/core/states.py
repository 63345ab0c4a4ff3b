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


LIVE = frozenset({State.QUEUED, State.LAUNCHING, State.LAUNCHED})
TERMINAL = frozenset(State) - LIVE

_Q, _L, _R = State.QUEUED, State.LAUNCHING, State.LAUNCHED

#: operation -> the moves it may make. None stands for "no record". An operation may also leave the state as it is.
TRANSITIONS: dict[str, frozenset[tuple[State | None, State]]] = {
    "put": frozenset({(None, _Q)}),
    "claim": frozenset({(_Q, _L), (_Q, State.EXPIRED)}),  # a stop has ended a QUEUED one before
    "launched": frozenset({(_L, _R), (_Q, _R)}),
    "no_effect": frozenset({(_L, _Q), (_L, State.REVOKED)}),
    "refused": frozenset({(_L, _Q), (_L, State.REVOKED), (_L, State.FAILED), (_L, State.REMOVED)}),
    "none": frozenset({(_L, _Q), (_L, State.FAILED), (_L, State.REVOKED), (_L, State.EXPIRED), (_L, State.UNKNOWN)}),
    "reclaim": frozenset({(_L, State.UNKNOWN)}),
    "outcome": frozenset({(_R, _Q)} | {(_R, end) for end in TERMINAL}),
    "stop": frozenset({(None, State.REVOKED), (_Q, State.REVOKED)}),
}
