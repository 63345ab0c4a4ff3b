"""How long to wait before the next try."""

from __future__ import annotations

import random
from typing import Protocol

import msgspec


class RandomSource(Protocol):
    """What a rule asks for a random number: a `random.Random`, or a `Draw`."""

    def uniform(self, a: float, b: float, /) -> float: ...


class RecordedDraw:
    """One draw, made when a rule asks for it, and kept: with the same `value` the rule decides the same again."""

    __slots__ = ("_rng", "value")

    def __init__(self, rng: random.Random | None = None, value: float | None = None) -> None:
        """`value`: a draw that was made before, in [0, 1); without it, `rng` makes one."""
        self._rng = rng
        self.value = value

    def uniform(self, a: float, b: float, /) -> float:
        """As `random.Random.uniform`."""
        if self.value is None:
            self.value = 0.5 if self._rng is None else self._rng.random()
        return a + (b - a) * self.value


class Backoff(msgspec.Struct, frozen=True):
    """Exponential with jitter, between `base` and `cap` seconds.

    Never less than `base`: one second that a ledger without a barrier loses at a fail-over must not span two launch
    numbers (PROTOCOL.md), which is why `base` is 2 by default.
    """

    base: float = 2.0
    cap: float = 60.0

    def delay(self, tries: int, rng: RandomSource) -> float:
        """Seconds to wait after the `tries`-th try (from 1): uniform between base and base * 2^tries, capped."""
        longest = min(self.cap, self.base * 2.0 ** min(max(tries, 1), 16))
        return rng.uniform(self.base, max(self.base, longest))
