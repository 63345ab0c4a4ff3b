"""Rates and ages of a worker's calls."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ecs_queue.ecs.clients import Target
from ecs_queue.errors import BrokerUnavailable
from ecs_queue.monitoring.catalogue import MAX_QUEUES, OTHER
from ecs_queue.monitoring.counters import WorkerCounters
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.worker.metrics import (
    RATE_WINDOW,
    Meter,
    MeteredGateway,
    MeteredResultBroker,
    QueueRates,
    WorkerMetrics,
)
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


def test_launches_and_ends_are_counted_by_queue_from_the_start_of_the_worker(clock: FakeClock) -> None:
    rates = QueueRates(clock)
    clock.advance(10)
    for name, queue in (("launch.started", "etl"), ("launch.assigned", "etl"), ("request.ended", "reports")):
        rates.record_event(name, {"queue": queue})
    rates.record_event("worker.stopped", {"worker": "w"})
    assert (rates.read_launches(), rates.read_ends()) == ({"etl": 0.2}, {"reports": 0.1})
    clock.advance(2 * RATE_WINDOW)
    assert (rates.read_launches(), rates.read_ends()) == ({}, {})


def test_rates_of_more_queues_than_are_shown_are_added_up(clock: FakeClock) -> None:
    rates = QueueRates(clock)
    clock.advance(10)
    for number in range(MAX_QUEUES + 3):
        rates.record_event("request.ended", {"queue": f"queue-{number}"})
    found = rates.read_ends()
    assert (len(found), found[OTHER]) == (MAX_QUEUES + 1, 0.3)


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


def test_calls_on_fargate_spot_are_counted_for_their_own_limit(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ecs, metrics = FixedResultEcs(clock), WorkerMetrics(clock)
    spot = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    monkeypatch.setattr(ecs, "default_strategy", lambda target: tuple(spot))
    clock.advance(1)
    gateway = MeteredGateway(ecs, metrics)
    gateway.default_strategy(TARGET)

    for arguments in ({"launchType": "FARGATE"}, {"capacityProviderStrategy": spot}, {}):
        gateway.run_task(TARGET, arguments, client_token="t", started_by="s", deadline=1e9)

    assert (metrics.start_calls.rate(), metrics.spot_calls.rate(), metrics.launches.rate()) == (1, 2, 3)


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


def test_publications_of_results_are_measured_whether_they_succeed_or_not() -> None:
    counters, clock = WorkerCounters(), FakeClock()
    published: list[Sequence[tuple[str, bytes]]] = []

    class SlowBroker:
        def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
            clock.advance(0.02)
            if published:
                raise BrokerUnavailable("it is away")
            published.append(messages)

    metered = MeteredResultBroker(SlowBroker(), counters, clock)
    metered.publish_results([("me", b"{}")])
    with pytest.raises(BrokerUnavailable):
        metered.publish_results([("me", b"{}")])

    values, (histogram,) = counters.read()
    assert published == [[("me", b"{}")]]
    assert (histogram.name, sum(histogram.counts)) == ("ecs_queue_broker_round_trip_seconds", 2)
    assert histogram.total == pytest.approx(0.04)
    (errors,) = (each for each in values if each.name == "ecs_queue_server_errors_total")
    assert (errors.labels, errors.value) == (("broker",), 1.0)
