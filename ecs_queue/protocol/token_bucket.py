"""A token bucket whose rate adapts to throttling: one API quota that all workers share. Pure: `now` is an argument.

The configured rate is a maximum. AWS throttles below it when other programs use the account. Then the rate drops by a
quarter, at most once per DECREASE_INTERVAL, and recovers over time (additive increase, multiplicative decrease). The
Redis ledger runs the same rules in Lua.
"""

from __future__ import annotations

import math

import msgspec

from ecs_queue.protocol.settings import DECREASE_FACTOR, DECREASE_INTERVAL, RECOVERY_PER_SECOND, TOKEN_TOLERANCE


class TokenBucket(msgspec.Struct):
    """`tokens` at `updated_at` (negative while tokens are owed), and the `rate_share` set at `lowered_at`."""

    tokens: float
    updated_at: float
    rate_share: float = 1.0
    lowered_at: float = 0.0

    def rate_share_at(self, now: float) -> float:
        """Return the share of the configured rate that is in effect, 0 to 1."""
        return min(1.0, self.rate_share + RECOVERY_PER_SECOND * max(0.0, now - self.lowered_at))

    def take(self, want: int, rate: float, burst: int, reserve: int, now: float) -> tuple[int, float]:
        """Take up to `want` tokens and leave `reserve` of them (a negative reserve allows debt).

        Returns:
            The number of granted tokens, and the seconds until the next one.
        """
        self._follow_clock(now)
        actual = rate * self.rate_share_at(now)
        self.tokens = min(float(burst), self.tokens + (now - self.updated_at) * actual)
        granted = max(0, min(want, math.floor(self.tokens - reserve + TOKEN_TOLERANCE)))
        self.tokens -= granted
        self.updated_at = now
        return granted, max(0.0, (1 + reserve - self.tokens) / actual)

    def record_throttle(self, now: float) -> float:
        """Lower the rate because AWS throttled a call. Returns the new share; 0 when this throttle lowers nothing."""
        self._follow_clock(now)
        if self.lowered_at and now - self.lowered_at < DECREASE_INTERVAL:
            return 0.0
        self.rate_share = self.rate_share_at(now) * DECREASE_FACTOR
        self.lowered_at = now
        self.tokens = min(self.tokens, 0.0)
        self.updated_at = now
        return self.rate_share

    def _follow_clock(self, now: float) -> None:
        """Count from now on when the clock has gone back: nothing is granted for that, and nothing waits for it."""
        self.updated_at, self.lowered_at = min(self.updated_at, now), min(self.lowered_at, now)
