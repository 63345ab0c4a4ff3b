"""How long a finished record is kept. The Redis form computes the same in lua/10_record.lua."""

from __future__ import annotations

import msgspec

from ecs_queue.core.record import Record

#: How far a producer's clock may be off before a late duplicate of its request could run again. Seconds.
CLOCK_SKEW = 300.0
#: The oldest dead letters are dropped beyond so many, beyond so many bytes (of their JSON; the newest one is always
#: kept), and at this age in seconds.
DEAD_LETTERS_KEPT = 10_000
DEAD_LETTERS_BYTES = 64 * 1024 * 1024
DEAD_LETTERS_SECONDS = 30 * 86400.0
#: How long a result waits for an owner that never confirms it, at least. Seconds.
UNCONFIRMED_CAP = 7 * 86400.0


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds` after the confirmation, or after the end when nobody waits for the result."""

    seconds: float = 86400.0
    unconfirmed_cap: float = UNCONFIRMED_CAP

    def gone_at(self, record: Record, now: float) -> float:
        """When a finished record is forgotten: never while a late duplicate of its message could still be accepted."""
        keep = max(self.unconfirmed_cap, self.seconds) if record.undelivered else self.seconds
        return max(record.accept_until + CLOCK_SKEW, now + keep)
