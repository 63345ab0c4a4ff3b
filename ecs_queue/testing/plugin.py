"""Fixtures for pytest: `pytest_plugins = ["ecs_queue.testing.plugin"]` in a conftest.py makes them available."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecs_queue.testing.clock import FakeClock
from ecs_queue.testing.queue import MemoryQueue


@pytest.fixture
def ecs_clock() -> FakeClock:
    """The clock of `ecs_queue`, which the test may move."""
    return FakeClock()


@pytest.fixture
def ecs_queue(ecs_clock: FakeClock) -> Iterator[MemoryQueue]:
    """A `MemoryQueue`, whose tasks succeed at once until the test calls `ecs_queue.end_with(...)`."""
    with MemoryQueue(clock=ecs_clock) as queue:
        yield queue


@pytest.fixture
def eager_ecs_queue(ecs_clock: FakeClock) -> Iterator[MemoryQueue]:
    """A `MemoryQueue` whose `submit` returns when everything has ended."""
    with MemoryQueue(clock=ecs_clock, eager=True) as queue:
        yield queue
