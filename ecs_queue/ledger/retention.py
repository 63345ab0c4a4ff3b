"""How long a finished record is kept. The Redis form computes the same in lua/10_record.lua."""

from __future__ import annotations

import msgspec

from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import MAX_CLOCK_SKEW


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds` after the confirmation, or after the end when nobody waits for the result."""

    seconds: float = 86400.0
    min_unconfirmed_seconds: float = 7 * 86400.0

    def forget_at(self, record: Record, now: float) -> float:
        """When a finished record is forgotten: never while a late duplicate of its message could still be accepted."""
        keep = max(self.min_unconfirmed_seconds, self.seconds) if record.undelivered else self.seconds
        return max(record.accept_until + MAX_CLOCK_SKEW, now + keep)
