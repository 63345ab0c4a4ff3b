"""Ordering ECS to stop tasks."""

from __future__ import annotations

import pytest

from ecs_queue.protocol.ecs_results import EcsError, EcsErrorKind, StopTaskResult
from ecs_queue.protocol.record import Record
from ecs_queue.worker.task_stopper import TaskStopper
from tests.worker.harness import TARGET, WorkerHarness

RECORD = Record(id="a", arn="arn:task/jobs/1")


@pytest.fixture
def harness() -> WorkerHarness:
    return WorkerHarness()


@pytest.fixture
def task_stopper(harness: WorkerHarness) -> TaskStopper:
    return TaskStopper(harness.worker.context, harness.worker.thread_pool)


def test_a_task_is_ordered_once_while_an_order_is_on_its_way(harness: WorkerHarness, task_stopper: TaskStopper) -> None:
    harness.worker.thread_pool.is_full = True
    for _ in range(5):
        task_stopper.request_stop(TARGET, RECORD, "alice")
        harness.clock.advance(60)

    harness.worker.thread_pool.resume()

    assert harness.ecs.stop_calls == [(RECORD.arn, "ecs-queue: stopped by alice")]


def test_no_more_orders_wait_than_there_is_room_for(harness: WorkerHarness, task_stopper: TaskStopper) -> None:
    harness.worker.thread_pool.is_full = True

    for index in range(1000):
        task_stopper.request_stop(TARGET, Record(id="a", arn=f"arn:task/jobs/{index}"), "alice")

    assert harness.worker.thread_pool.waiting_jobs == 2 * harness.config.concurrency


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        (None, 5),
        (EcsErrorKind.THROTTLED, 2),
        (EcsErrorKind.UNAVAILABLE, 2),
        (EcsErrorKind.DENIED, 30),
    ],
)
def test_it_is_ordered_again_after_a_while(
    harness: WorkerHarness, task_stopper: TaskStopper, kind: EcsErrorKind | None, seconds: float
) -> None:
    harness.ecs.stop_task_results.append(StopTaskResult(error=EcsError(kind, "ECS said so") if kind else None))
    task_stopper.request_stop(TARGET, RECORD, "alice")

    harness.clock.advance(seconds - 0.1)
    task_stopper.request_stop(TARGET, RECORD, "alice")
    assert len(harness.ecs.stop_calls) == 1
    harness.clock.advance(0.2)
    task_stopper.request_stop(TARGET, RECORD, "alice")

    assert len(harness.ecs.stop_calls) == 2


def test_stops_share_the_rate_limit_of_launches() -> None:
    harness = WorkerHarness(run_task_rate=1, run_task_burst=3)
    task_stopper = TaskStopper(harness.worker.context, harness.worker.thread_pool)
    for _ in range(3):
        assert not harness.worker.context.stop_task_limiter.try_acquire(TARGET)

    task_stopper.request_stop(TARGET, RECORD, "alice")
    assert not harness.ecs.stop_calls
    harness.clock.advance(1.01)
    harness.worker.thread_pool.wake()

    assert len(harness.ecs.stop_calls) == 1


def test_launches_never_take_the_last_token_from_an_order() -> None:
    harness = WorkerHarness(run_task_rate=1, run_task_burst=3)
    task_stopper = TaskStopper(harness.worker.context, harness.worker.thread_pool)
    while not harness.worker.context.run_task_limiter.try_acquire(TARGET):
        pass

    task_stopper.request_stop(TARGET, RECORD, "alice")

    assert len(harness.ecs.stop_calls) == 1


def test_a_throttled_order_slows_launches_down() -> None:
    harness = WorkerHarness(run_task_rate=1, run_task_burst=3)
    task_stopper = TaskStopper(harness.worker.context, harness.worker.thread_pool)
    harness.ecs.stop_task_results.append(StopTaskResult(error=EcsError(EcsErrorKind.THROTTLED, "Rate exceeded")))

    task_stopper.request_stop(TARGET, RECORD, "alice")

    assert harness.worker.emitted("rate_limit.lowered") == [{"limiter": "run_task", "rate": 0.75}]
    assert harness.worker.context.run_task_limiter.try_acquire(TARGET) > 1


def test_what_is_over_is_forgotten(harness: WorkerHarness, task_stopper: TaskStopper) -> None:
    for index in range(100):
        task_stopper.request_stop(TARGET, Record(id="a", arn=f"arn:task/jobs/{index}"), "alice")
    harness.clock.advance(6)

    task_stopper.forget_old()

    assert not task_stopper._next_stop_at
