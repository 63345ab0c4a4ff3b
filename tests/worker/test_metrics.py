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
    """Returns `result` from every RunTask."""

    result = RunTaskResult(RunTaskResultKind.STARTED, arn="arn:1")

    def run_task(self, *arguments: object, **named: object) -> RunTaskResult:
        return self.result


@pytest.mark.parametrize(
    ("result", "counted"),
    [
        (RunTaskResult(RunTaskResultKind.STARTED, arn="arn:1"), (1, 1)),
        (RunTaskResult(RunTaskResultKind.THROTTLED), (0, 1)),
        (RunTaskResult(RunTaskResultKind.NEVER_SENT, was_sent=False), (0, 0)),
    ],
)
def test_calls_that_were_sent_and_tasks_that_were_started_are_counted(
    clock: FakeClock, result: RunTaskResult, counted: tuple[int, int]
) -> None:
    ecs, metrics = FixedResultEcs(clock), WorkerMetrics(clock)
    ecs.result = result
    clock.advance(1)
    gateway = MeteredGateway(ecs, metrics)
    assert gateway.run_task(TARGET, {}, client_token="t", started_by="s", deadline=1e9) is result
    assert (metrics.launches.rate(), metrics.start_calls.rate()) == counted


def test_reads_and_stops_are_counted_where_aws_counts_them(clock: FakeClock) -> None:
    ecs, metrics = FixedResultEcs(clock), WorkerMetrics(clock)
    clock.advance(1)
    gateway = MeteredGateway(ecs, metrics)
    gateway.describe_tasks(TARGET, ["arn:1"])
    gateway.list_tasks(TARGET, "ns/id/n/1", "family")
    gateway.stop_task(TARGET, "arn:1", "why")
    assert (metrics.read_calls.rate(), metrics.start_calls.rate(), metrics.launches.rate()) == (2, 1, 0)


def test_a_poll_that_failed_is_none(clock: FakeClock) -> None:
    metrics = WorkerMetrics(clock)

    def fails() -> float:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        metrics.count_broker_polls(fails)()
    assert metrics.broker_polls.age() is None
    assert metrics.count_broker_polls(lambda: 0.5)() == 0.5
    assert metrics.broker_polls.age() == 0.0
