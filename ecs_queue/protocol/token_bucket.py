"""A token bucket whose rate adapts: the rules of one API quota that all workers share. Pure: `now` is handed in.

The configured rate is a ceiling. Where AWS throttles all the same, somebody else uses the account: the rate drops by a
quarter, at most once in a while, and rises again with time (additive increase, multiplicative decrease). The Redis
ledger runs the same rules in Lua.
"""

from __future__ import annotations

import math

import msgspec

from ecs_queue.protocol.settings import DECREASE_FACTOR, DECREASE_INTERVAL, RECOVERY_PER_SECOND, TOKEN_TOLERANCE


class TokenBucket(msgspec.Struct):
    """`tokens` at the time `at`, negative while in debt; `share` of the rate since `lowered_at`."""

    tokens: float
    updated_at: float
    rate_share: float = 1.0
    lowered_at: float = 0.0

    def rate_share_at(self, now: float) -> float:
        """What is in effect of the configured rate, 0 to 1."""
        return min(1.0, self.rate_share + RECOVERY_PER_SECOND * max(0.0, now - self.lowered_at))

    def take(self, want: int, rate: float, burst: int, reserve: int, now: float) -> tuple[int, float]:
        """Up to `want` tokens, seconds until the next one. `reserve` tokens stay; a negative one may be owed."""
        actual = rate * self.rate_share_at(now)
        self.tokens = min(float(burst), self.tokens + max(0.0, now - self.updated_at) * actual)
        granted = max(0, min(want, math.floor(self.tokens - reserve + TOKEN_TOLERANCE)))
        self.tokens -= granted
        self.updated_at = max(self.updated_at, now)
        return granted, max(0.0, (1 + reserve - self.tokens) / actual)

    def record_throttle(self, now: float) -> float:
        """AWS has refused a call: the new share, 0 when this throttle lowers nothing."""
        if self.lowered_at and now - self.lowered_at < DECREASE_INTERVAL:
            return 0.0
        self.rate_share = self.rate_share_at(now) * DECREASE_FACTOR
        self.lowered_at = now
        self.tokens = min(self.tokens, 0.0)
        self.updated_at = max(self.updated_at, now)
        return self.rate_share
