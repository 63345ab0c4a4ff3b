"""The token bucket whose rate adapts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.protocol.settings import DECREASE_FACTOR, DECREASE_INTERVAL
from ecs_queue.protocol.token_bucket import TokenBucket

NOW = 1_000_000.0


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 8), st.booleans()), max_size=60))
def test_never_more_than_the_burst_and_the_rate_are_granted_whatever_is_throttled(
    steps: list[tuple[float, int, bool]],
) -> None:
    bucket, now, granted = TokenBucket(10.0, NOW), NOW, 0
    for seconds, want, throttled in steps:
        now += seconds
        if throttled:
            bucket.record_throttle(now)
        granted += bucket.take(want, 2.0, 10, 0, now)[0]
    assert granted <= 10 + 2.0 * (now - NOW) + 1e-3


@given(st.floats(0, 50), st.integers(1, 20), st.integers(-20, 19), st.floats(0.1, 50))
def test_a_token_is_there_at_the_time_it_names(tokens: float, want: int, reserve: int, rate: float) -> None:
    bucket = TokenBucket(tokens, NOW)
    granted, wait = bucket.take(want, rate, 20, reserve, NOW)
    assert bucket.tokens >= reserve - 1e-3 or not granted
    assert TokenBucket(bucket.tokens, NOW).take(1, rate, 20, reserve, NOW + wait + 1e-6)[0] == 1


def test_a_throttle_lowers_the_share_once_in_a_while() -> None:
    bucket = TokenBucket(10.0, NOW)
    assert bucket.record_throttle(NOW) == DECREASE_FACTOR
    assert bucket.tokens == 0
    assert bucket.record_throttle(NOW + DECREASE_INTERVAL / 2) == 0
    assert bucket.record_throttle(NOW + DECREASE_INTERVAL) < DECREASE_FACTOR


def test_an_eighth_is_left_where_all_is_throttled_and_time_brings_back_the_whole() -> None:
    bucket = TokenBucket(10.0, NOW)
    for step in range(100):
        bucket.record_throttle(NOW + 2 * step)
    assert bucket.rate_share == pytest.approx(0.12)
    later = NOW + 198
    assert bucket.rate_share_at(later + 10) == pytest.approx(0.32)
    assert bucket.rate_share_at(later + 60) == 1.0


def test_a_clock_that_steps_back_changes_nothing() -> None:
    bucket = TokenBucket(0.0, NOW, rate_share=0.5, lowered_at=NOW)
    assert bucket.take(5, 1.0, 10, 0, NOW - 100)[0] == 0
    assert bucket.rate_share_at(NOW - 100) == 0.5
