"""How long to wait before the next try."""

from __future__ import annotations

import random

import msgspec


class Backoff(msgspec.Struct, frozen=True):
    """Exponential with jitter, between `base` and `cap` seconds.

    Never less than `base`: one second that a ledger without a barrier loses at a fail-over must not span two launch
    numbers (PROTOCOL.md), which is why `base` is 2 by default.
    """

    base: float = 2.0
    cap: float = 60.0

    def delay(self, tries: int, rng: random.Random) -> float:
        """Seconds to wait after the `tries`-th try (from 1): uniform between base and base * 2^tries, capped."""
        longest = min(self.cap, self.base * 2.0 ** min(max(tries, 1), 16))
        return rng.uniform(self.base, max(self.base, longest))
