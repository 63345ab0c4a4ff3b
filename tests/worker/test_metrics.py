"""Rates and ages of a worker's calls."""

from __future__ import annotations

import pytest

from ecs_queue.ecs.clients import Target
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.worker.metrics import RATE_WINDOW, Meter, MeteredGateway, WorkerMetrics
from tests.fake_clock import FakeClock
from tests.fake_ecs import FakeEcs

TARGET = Target(region="eu-west-1", endpoint_url=None, role_arn=None, cluster="prod")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_rate_is_of_the_last_minute_or_of_the_time_since_the_start(clock: FakeClock) -> None:
    meter = Meter(clock)
    assert (meter.rate(), meter.age()) == (0.0, None)
    for _ in range(10):
        clock.advance(1)
        meter.mark()
        meter.mark()
    assert meter.rate() == pytest.approx(2.0)
    clock.advance(RATE_WINDOW / 2)
    assert meter.rate() == pytest.approx(20 / (10 + RATE_WINDOW / 2))
    assert meter.age() == pytest.approx(RATE_WINDOW / 2)
    clock.advance(RATE_WINDOW)
    assert meter.rate() == 0.0
    assert meter.age() == pytest.approx(1.5 * RATE_WINDOW)


def test_a_meter_holds_no_more_than_its_window(clock: FakeClock) -> None:
    meter = Meter(clock)
    for _ in range(500):
        clock.advance(1)
        meter.mark()
    assert meter.rate() == pytest.approx(1.0, rel=0.05)
    assert len(meter._seconds) <= RATE_WINDOW + 2


class FixedResultEcs(FakeEcs):
    """Answers every RunTask with what it is told."""

    result = RunTaskResult(RunTaskResultKind.STARTED, arn="arn:1")

    def run_task(self, *arguments: object, **named: object) -> RunTaskResult:
        return self.result


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (RunTaskResult(RunTaskResultKind.STARTED, arn="arn:1"), (1, 1)),
        (RunTaskResult(RunTaskResultKind.THROTTLED), (0, 1)),
        (RunTaskResult(RunTaskResultKind.NEVER_SENT, was_sent=False), (0, 0)),
    ],
)
def test_calls_that_were_sent_and_tasks_that_were_started_are_counted(
    clock: FakeClock, answer: RunTaskResult, counted: tuple[int, int]
) -> None:
    ecs, vitals = FixedResultEcs(clock), WorkerMetrics(clock)
    ecs.result = answer
    clock.advance(1)
    gateway = MeteredGateway(ecs, vitals)
    assert gateway.run_task(TARGET, {}, client_token="t", started_by="s", deadline=1e9) is answer
    assert (vitals.launches.rate(), vitals.start_calls.rate()) == counted


def test_reads_and_stops_are_counted_where_aws_counts_them(clock: FakeClock) -> None:
    ecs, vitals = FixedResultEcs(clock), WorkerMetrics(clock)
    clock.advance(1)
    gateway = MeteredGateway(ecs, vitals)
    gateway.describe_tasks(TARGET, ["arn:1"])
    gateway.list_tasks(TARGET, "ns/id/n/1")
    gateway.stop_task(TARGET, "arn:1", "why")
    assert (vitals.read_calls.rate(), vitals.start_calls.rate(), vitals.launches.rate()) == (2, 1, 0)


def test_a_poll_that_failed_is_none(clock: FakeClock) -> None:
    vitals = WorkerMetrics(clock)

    def fails() -> float:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        vitals.count_broker_polls(fails)()
    assert vitals.broker_polls.age() is None
    assert vitals.count_broker_polls(lambda: 0.5)() == 0.5
    assert vitals.broker_polls.age() == 0.0
