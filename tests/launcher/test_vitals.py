"""Rates and ages of a worker's calls."""

from __future__ import annotations

import pytest

from ecs_queue.core.answers import Kind, RunAnswer
from ecs_queue.ecs.clients import Target
from ecs_queue.launcher.vitals import WINDOW, Meter, MeteredGateway, Vitals
from tests.launcher.fake_ecs import FakeEcs
from tests.launcher.lab import Clock

TARGET = Target(region="eu-west-1", endpoint_url=None, role_arn=None, cluster="prod")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_rate_is_of_the_last_minute_or_of_the_time_since_the_start(clock: Clock) -> None:
    meter = Meter(clock)
    assert (meter.rate(), meter.age()) == (0.0, None)
    for _ in range(10):
        clock.advance(1)
        meter.mark()
        meter.mark()
    assert meter.rate() == pytest.approx(2.0)
    clock.advance(WINDOW / 2)
    assert meter.rate() == pytest.approx(20 / (10 + WINDOW / 2))
    assert meter.age() == pytest.approx(WINDOW / 2)
    clock.advance(WINDOW)
    assert meter.rate() == 0.0
    assert meter.age() == pytest.approx(1.5 * WINDOW)


def test_a_meter_holds_no_more_than_its_window(clock: Clock) -> None:
    meter = Meter(clock)
    for _ in range(500):
        clock.advance(1)
        meter.mark()
    assert meter.rate() == pytest.approx(1.0, rel=0.05)
    assert len(meter._seconds) <= WINDOW + 2


class Answering(FakeEcs):
    """Answers every RunTask with what it is told."""

    answer = RunAnswer(Kind.STARTED, arn="arn:1")

    def run_task(self, *arguments: object, **named: object) -> RunAnswer:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (RunAnswer(Kind.STARTED, arn="arn:1"), (1, 1)),
        (RunAnswer(Kind.THROTTLED), (0, 1)),
        (RunAnswer(Kind.NEVER_SENT, sent=False), (0, 0)),
    ],
)
def test_calls_that_were_sent_and_tasks_that_were_started_are_counted(
    clock: Clock, answer: RunAnswer, counted: tuple[int, int]
) -> None:
    ecs, vitals = Answering(clock), Vitals(clock)
    ecs.answer = answer
    clock.advance(1)
    gateway = MeteredGateway(ecs, vitals)
    assert gateway.run_task(TARGET, {}, client_token="t", started_by="s", deadline=1e9) is answer
    assert (vitals.launches.rate(), vitals.starts.rate()) == counted


def test_reads_and_stops_are_counted_where_aws_counts_them(clock: Clock) -> None:
    ecs, vitals = Answering(clock), Vitals(clock)
    clock.advance(1)
    gateway = MeteredGateway(ecs, vitals)
    gateway.describe_tasks(TARGET, ["arn:1"])
    gateway.list_tasks(TARGET, "ns/id/n/1")
    gateway.stop_task(TARGET, "arn:1", "why")
    assert (vitals.reads.rate(), vitals.starts.rate(), vitals.launches.rate()) == (2, 1, 0)


def test_a_poll_that_failed_is_none(clock: Clock) -> None:
    vitals = Vitals(clock)

    def fails() -> float:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        vitals.polling(fails)()
    assert vitals.polls.age() is None
    assert vitals.polling(lambda: 0.5)() == 0.5
    assert vitals.polls.age() == 0.0
