"""The wait before the next attempt, and the random source that it draws from."""

from __future__ import annotations

import random
from typing import Protocol

import msgspec


class RandomSource(Protocol):
    """The source of a rule's random numbers: a `random.Random` or a `RecordedDraw`."""

    def uniform(self, a: float, b: float, /) -> float: ...


class RecordedDraw:
    """One draw, made on first use and kept in `value`: with the same value a rule repeats its decision."""

    __slots__ = ("_rng", "value")

    def __init__(self, rng: random.Random | None = None, value: float | None = None) -> None:
        """Repeat the recorded draw `value` in [0, 1), or without it draw from `rng`."""
        self._rng = rng
        self.value = value

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number between a and b, as `random.Random.uniform` does."""
        if self.value is None:
            self.value = 0.5 if self._rng is None else self._rng.random()
        return a + (b - a) * self.value


class Backoff(msgspec.Struct, frozen=True):
    """Exponential backoff with jitter, between `base` and `cap` seconds.

    It is never less than `base`: the second that a ledger without a barrier may lose at a fail-over must not contain
    two launch numbers (docs/protocol.md). That is why retry_base_seconds is 2 by default.
    """

    base: float
    cap: float

    def delay(self, tries: int, rng: RandomSource) -> float:
        """Return the seconds to wait after attempt `tries` (from 1): between base and base * 2^tries, capped."""
        longest = min(self.cap, self.base * 2.0 ** min(max(tries, 1), 16))
        return rng.uniform(self.base, max(self.base, longest))
