"""What could not be used and was kept apart from the rest, and what dropping it did."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class BrokenKind(StrEnum):
    """What a broken item is."""

    RECORD = "record"
    DEAD_LETTER = "dead_letter"
    WORKER = "worker"
    """A worker's heartbeat."""
    PAUSE = "pause"
    EVENT_FACT = "event_fact"
    COUNT = "count"
    """The number of requests of a queue in a state."""
    KEY = "key"
    """A key that many items share, such as an index. It was renamed, and an empty one took its place."""


class BrokenItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item that cannot be used.

    `name` is the item's own: a request's id, a dead letter's key, a worker, a queue. Bytes that are no UTF-8 stand in
    it as lone surrogates, as Python has them in file names. `since` is seconds since the epoch by the ledger's clock.
    """

    kind: str
    name: str
    since: float
    reason: str

    @property
    def key(self) -> str:
        """What names the item on the command line."""
        return f"{self.kind}:{self.name}"


class DropResult(StrEnum):
    """What `drop_broken` did with one item."""

    DROPPED = "dropped"
    """It is deleted."""
    SOUND = "sound"
    """It can be used again by now, and was returned; nothing is deleted."""
    NOT_LISTED = "not_listed"
    """No such item is in the list; nothing is deleted."""
