"""The wait before the next attempt."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.config import load_config
from ecs_queue.protocol.retry import Backoff

BACKOFF = Backoff(2.0, 60.0)

seconds = st.floats(min_value=0.05, max_value=3600)


@given(base=seconds, cap=seconds, tries=st.integers(min_value=0, max_value=10**6), seed=st.integers())
def test_it_is_never_less_than_the_base_nor_more_than_the_cap(base: float, cap: float, tries: int, seed: int) -> None:
    delay = Backoff(base, cap).delay(tries, random.Random(seed))

    assert base <= delay <= max(base, cap)


def test_the_longest_delay_doubles_with_every_try() -> None:
    class Longest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    assert [Backoff(2.0, 60.0).delay(tries, Longest()) for tries in range(1, 7)] == [4, 8, 16, 32, 60, 60]


def test_delays_of_the_same_try_differ() -> None:
    rng = random.Random(1)

    assert len({BACKOFF.delay(3, rng) for _ in range(20)}) == 20


def test_the_same_random_source_gives_the_same_delay() -> None:
    assert BACKOFF.delay(3, random.Random(7)) == BACKOFF.delay(3, random.Random(7))


def test_the_base_is_two_seconds_unless_it_is_set() -> None:
    """One second that a ledger loses at a fail-over must not contain two launch numbers."""
    config = load_config(environ={})

    assert (config.retry_base_seconds, config.retry_cap_seconds) == (2.0, 60.0)
