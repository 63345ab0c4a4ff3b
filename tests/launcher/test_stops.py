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

    assert len(lab.worker.slots.kept) == 2 * lab.config.concurrency


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
    lab = Lab(run_task_rate=1, run_task_burst=1)
    orders = StopOrders(lab.worker.parts, lab.worker.slots)
    lab.launched()
    lab.worker.stopping.set()  # so that waiting for the quota ends

    orders.order(TARGET, RECORD, "alice")

    assert not lab.ecs.stopped


def test_what_is_over_is_forgotten(lab: Lab, orders: StopOrders) -> None:
    for index in range(100):
        orders.order(TARGET, Record(id="a", arn=f"arn:task/jobs/{index}"), "alice")
    lab.clock.advance(6)

    orders.forget_old()

    assert not orders._next
