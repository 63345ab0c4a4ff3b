"""Calls on a queue in memory that is not eager: waiting for one lets the time of the test's clock pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecs_queue import CallFailed, EcsExecutor
from ecs_queue.calls.store import MemoryCallStore
from ecs_queue.errors import ResultTimeout
from ecs_queue.testing import Exit, MemoryQueue, NothingEnds, Task
from tests.calls.functions import add


@pytest.fixture
def queue() -> Iterator[MemoryQueue]:
    def end(task: Task) -> Exit:
        return Exit(1, after=3600)

    with MemoryQueue(end) as made:
        yield made


def test_a_result_is_waited_for_by_the_tests_clock(queue: MemoryQueue) -> None:
    start = queue.clock()
    with EcsExecutor(queue, store=MemoryCallStore()) as executor:
        call = executor.submit(add, 1, 1)
        with pytest.raises(ResultTimeout):
            call.result(60)
        assert queue.clock() == start + 60

        assert isinstance(call.exception(), CallFailed)

    assert queue.clock() >= start + 3600


def test_a_shutdown_waits_by_the_tests_clock(queue: MemoryQueue) -> None:
    executor = EcsExecutor(queue, store=MemoryCallStore())
    calls = [executor.submit(add, 1, 1) for _ in range(3)]

    executor.shutdown()

    assert all(call.done() for call in calls)


def test_a_call_that_never_ends_is_named(queue: MemoryQueue) -> None:
    executor = EcsExecutor(queue, store=MemoryCallStore())
    queue.end_with(lambda task: Exit(after=1e9))
    call = executor.submit(add, 1, 1)

    with pytest.raises(NothingEnds, match=f"{call.handle.id} is LAUNCHED"):
        call.result()

    executor.shutdown(cancel_futures=True)
