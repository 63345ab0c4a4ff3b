"""StopTask orders."""

from __future__ import annotations

import pytest

from ecs_queue.core.answers import StopAnswer, StopKind
from ecs_queue.core.record import Record
from ecs_queue.launcher.stops import StopOrders
from tests.launcher.lab import TARGET, Lab

RECORD = Record(id="a", arn="arn:task/jobs/1")


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def orders(lab: Lab) -> StopOrders:
    return StopOrders(lab.worker.parts, lab.worker.slots)


def test_a_task_is_ordered_once_while_an_order_is_on_its_way(lab: Lab, orders: StopOrders) -> None:
    lab.worker.slots.full = True
    for _ in range(5):
        orders.order(TARGET, RECORD, "alice")
        lab.clock.advance(60)

    lab.worker.slots.run_kept()

    assert lab.ecs.stopped == [(RECORD.arn, "ecs-queue: stopped by alice")]


def test_no_more_orders_wait_than_there_is_room_for(lab: Lab, orders: StopOrders) -> None:
    lab.worker.slots.full = True

    for index in range(1000):
        orders.order(TARGET, Record(id="a", arn=f"arn:task/jobs/{index}"), "alice")

    assert lab.worker.slots.kept == 2 * lab.config.concurrency


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [(StopKind.OK, 5), (StopKind.THROTTLED, 2), (StopKind.UNAVAILABLE, 2), (StopKind.DENIED, 30)],
)
def test_it_is_ordered_again_after_a_while(lab: Lab, orders: StopOrders, kind: StopKind, seconds: float) -> None:
    lab.ecs.stop_answers.append(StopAnswer(kind, reason="ECS said so"))
    orders.order(TARGET, RECORD, "alice")

    lab.clock.advance(seconds - 0.1)
    orders.order(TARGET, RECORD, "alice")
    assert len(lab.ecs.stopped) == 1
    lab.clock.advance(0.2)
    orders.order(TARGET, RECORD, "alice")

    assert len(lab.ecs.stopped) == 2


def test_orders_share_the_quota_of_launches() -> None:
    lab = Lab(run_task_rate=1, run_task_burst=3)
    orders = StopOrders(lab.worker.parts, lab.worker.slots)
    for _ in range(3):
        assert not lab.worker.parts.stop_quota.take(TARGET)

    orders.order(TARGET, RECORD, "alice")
    assert not lab.ecs.stopped
    lab.clock.advance(1.01)
    lab.worker.slots.kick()

    assert len(lab.ecs.stopped) == 1


def test_launches_never_take_the_last_token_from_an_order() -> None:
    lab = Lab(run_task_rate=1, run_task_burst=3)
    orders = StopOrders(lab.worker.parts, lab.worker.slots)
    while not lab.worker.parts.run_quota.take(TARGET):
        pass

    orders.order(TARGET, RECORD, "alice")

    assert len(lab.ecs.stopped) == 1


def test_a_throttled_order_slows_launches_down() -> None:
    lab = Lab(run_task_rate=1, run_task_burst=3)
    orders = StopOrders(lab.worker.parts, lab.worker.slots)
    lab.ecs.stop_answers.append(StopAnswer(StopKind.THROTTLED, reason="Rate exceeded"))

    orders.order(TARGET, RECORD, "alice")

    assert lab.worker.told("quota.lowered") == [{"calls": "run_task", "rate": 0.75}]
    assert lab.worker.parts.run_quota.take(TARGET) > 1


def test_what_is_over_is_forgotten(lab: Lab, orders: StopOrders) -> None:
    for index in range(100):
        orders.order(TARGET, Record(id="a", arn=f"arn:task/jobs/{index}"), "alice")
    lab.clock.advance(6)

    orders.forget_old()

    assert not orders._next
