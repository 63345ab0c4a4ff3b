"""How many workers a queue needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.monitoring.scaling import count_workers_wanted


@pytest.mark.parametrize(
    ("backlog", "in_flight", "concurrency", "rate", "room", "wanted"),
    [
        (0, 0, 32, 20, 1e9, 0),
        (0, 5, 32, 20, 1e9, 1),  # a worker follows the tasks
        (1, 0, 32, 20, 1e9, 1),
        (100_000, 0, 32, 20, 1e9, 1),  # one worker uses up 20 calls a second
        (100_000, 0, 8, 20, 1e9, 3),
        (960, 0, 8, 0, 1e9, 2),  # 8 a second for a minute each
        (961, 0, 8, 0, 1e9, 3),
        (100_000, 10, 8, 0, 0, 1),  # paused or full: more workers launch nothing
        (100_000, 0, 8, 0, 500, 2),
    ],
)
def test_workers_wanted(backlog: int, in_flight: int, concurrency: int, rate: float, room: float, wanted: int) -> None:
    assert count_workers_wanted(backlog, in_flight, concurrency, rate, room=room) == wanted


@given(st.integers(0, 10**7), st.integers(0, 10**6), st.integers(1, 1024), st.floats(0.01, 1e6), st.floats(1, 1e6))
def test_there_are_never_more_workers_than_the_quota_feeds(
    backlog: int, in_flight: int, concurrency: int, rate: float, drain_seconds: float
) -> None:
    wanted = count_workers_wanted(backlog, in_flight, concurrency, rate, drain_seconds=drain_seconds)
    assert (wanted > 0) == (backlog + in_flight > 0)
    assert wanted <= 1 or (wanted - 1) * concurrency < rate
