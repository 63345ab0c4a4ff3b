"""How long a finished record is kept. The Redis form computes the same in lua/10_record.lua."""

from __future__ import annotations

import msgspec

from ecs_queue.protocol.record import Record

#: How far a producer's clock may be off before a late duplicate of its request could run again. Seconds.
MAX_CLOCK_SKEW = 300.0
#: The oldest dead letters are dropped beyond so many, beyond so many bytes (of their JSON; the newest one is always
#: kept), and at this age in seconds.
MAX_DEAD_LETTERS = 10_000
MAX_DEAD_LETTER_BYTES = 64 * 1024 * 1024
MAX_DEAD_LETTER_AGE = 30 * 86400.0
#: How long a result waits for an owner that never confirms it, at least. Seconds.
MIN_UNCONFIRMED_RETENTION = 7 * 86400.0


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds` after the confirmation, or after the end when nobody waits for the result."""

    seconds: float = 86400.0
    min_unconfirmed_seconds: float = MIN_UNCONFIRMED_RETENTION

    def forget_at(self, record: Record, now: float) -> float:
        """When a finished record is forgotten: never while a late duplicate of its message could still be accepted."""
        keep = max(self.min_unconfirmed_seconds, self.seconds) if record.undelivered else self.seconds
        return max(record.accept_until + MAX_CLOCK_SKEW, now + keep)
