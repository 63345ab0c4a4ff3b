"""Whole workers, in real time, over an in-memory broker and ledger and a fake ECS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ecs_queue.broker import KombuBroker
from ecs_queue.errors import BrokerUnavailable, ConfigError
from ecs_queue.ledger import open_ledger
from ecs_queue.local.ecs.faults import AwsTokenBucket
from ecs_queue.local.ecs.options import Quota
from ecs_queue.protocol.ecs_results import RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.states import State
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.worker import Worker
from tests.fake_ecs import FakeEcs, RunTaskCall
from tests.wait import wait_until
from tests.worker.harness import make_config
from tests.worker.live_harness import LiveWorkerHarness


@pytest.fixture
def make_harness() -> Iterator[Callable[..., LiveWorkerHarness]]:
    harnesses: list[LiveWorkerHarness] = []

    def make(**keys: float) -> LiveWorkerHarness:
        harnesses.append(LiveWorkerHarness(**keys))
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.ecs.on_run_task = lambda call: None
        harness.stop_workers()


def test_requests_are_launched_and_followed_to_their_end(make_harness: Callable[..., LiveWorkerHarness]) -> None:
    harness = make_harness()
    harness.start_worker()

    harness.submit("a", "b")
    wait_until(lambda: len(harness.ecs.tasks) == 2)
    for arn in list(harness.ecs.tasks):
        harness.ecs.finish(arn)

    wait_until(lambda: harness.states("a", "b") == [State.SUCCESS] * 2)


def test_a_worker_that_stops_finishes_its_calls_and_another_takes_the_rest(
    make_harness: Callable[..., LiveWorkerHarness],
) -> None:
    harness = make_harness(concurrency=2)
    begun, go = threading.Semaphore(0), threading.Event()

    def slow(call: RunTaskCall) -> None:
        begun.release()
        assert go.wait(60)

    harness.ecs.on_run_task = slow
    first = harness.start_worker()
    ids = [f"t{index}" for index in range(8)]
    harness.submit(*ids)
    for _ in range(2):
        assert begun.acquire(timeout=30)

    first.stop()
    time.sleep(0.05)
    go.set()
    assert first.join()

    launched = [
        record_id for record_id, state in zip(ids, harness.states(*ids), strict=True) if state is State.LAUNCHED
    ]
    assert len(launched) == len(harness.ecs.tasks) == 2
    assert harness.broker.backlog("default") == 6

    harness.start_worker()
    wait_until(lambda: harness.states(*ids) == [State.LAUNCHED] * 8)
    assert len(harness.ecs.tasks) == 8


def test_no_more_calls_are_made_at_the_same_time_than_there_are_threads(
    make_harness: Callable[..., LiveWorkerHarness],
) -> None:
    harness = make_harness(concurrency=3)
    lock, running, most = threading.Lock(), 0, 0

    def count(call: RunTaskCall) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    harness.ecs.on_run_task = count
    ids = [f"t{index}" for index in range(40)]
    harness.submit(*ids)
    harness.start_worker()

    wait_until(lambda: harness.states(*ids) == [State.LAUNCHED] * 40)
    assert most == 3


def test_stopping_ends_in_time_though_a_call_hangs(make_harness: Callable[..., LiveWorkerHarness]) -> None:
    harness = make_harness(concurrency=1)
    begun, go = threading.Event(), threading.Event()

    def hang(call: RunTaskCall) -> None:
        begun.set()
        assert go.wait(60)

    harness.ecs.on_run_task = hang
    worker = harness.start_worker()
    harness.submit("a")
    assert begun.wait(30)

    worker.stop()
    before = time.monotonic()
    ended = worker.join(0.3)

    assert not ended
    assert time.monotonic() - before < 10
    go.set()


def test_stopping_twice_and_without_a_start_does_no_harm(make_harness: Callable[..., LiveWorkerHarness]) -> None:
    harness = make_harness()
    never_started = Worker(harness.config, harness.broker, harness.ledger, gateway=harness.ecs)
    never_started.stop()
    assert never_started.join(1.0)

    worker = harness.start_worker()
    worker.stop()
    worker.stop()

    assert worker.join()
    assert harness.emitted.count("worker.stopping") == 1


class UnavailableBroker(KombuBroker):
    """A broker that cannot be reached."""

    def consume_requests(self, *arguments: object) -> None:  # type: ignore[override]
        raise BrokerUnavailable


def test_requests_go_on_while_the_broker_cannot_be_reached(make_harness: Callable[..., LiveWorkerHarness]) -> None:
    harness = make_harness()
    config = make_config(namespace=harness.config.namespace, lease_seconds=5, sweep_after_seconds=0.1)
    harness.ledger = open_ledger(config)
    harness.start_worker(UnavailableBroker("memory://", "n", visibility_timeout=1, socket_timeout=1), config)

    harness.submit("a", publish=False)

    wait_until(lambda: harness.states("a") == [State.LAUNCHED])


def test_it_says_that_it_is_there_and_what_it_does(make_harness: Callable[..., LiveWorkerHarness]) -> None:
    harness = make_harness()
    worker = harness.start_worker()
    harness.submit("a")
    wait_until(lambda: harness.states("a") == [State.LAUNCHED])

    wait_until(lambda: [info.name for info in harness.ledger.list_workers()] == [worker.name])

    (info,) = harness.ledger.list_workers()
    assert (info.queues, info.concurrency, info.health) == (["default"], 4, "ok")


def test_a_queue_that_cannot_launch_is_refused_at_the_check(make_harness: Callable[..., LiveWorkerHarness]) -> None:
    harness = make_harness()
    broken = make_config({"AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": ""})

    with pytest.raises(ConfigError, match="subnet"):
        Worker(broken, harness.broker, harness.ledger, gateway=harness.ecs).check()


def test_findings_of_aws_and_the_ledger_are_reported_at_the_check(
    make_harness: Callable[..., LiveWorkerHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = make_harness()
    reasons: list[str] = []
    config = make_config({"AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "True"})
    monkeypatch.setattr(harness.ecs, "check_cluster", lambda target: ["the cluster is INACTIVE"])
    monkeypatch.setattr(harness.ledger, "check_server", lambda: ["it may drop records"])
    telemetry = Telemetry(lambda name, fields: reasons.append(fields["reason"]))

    Worker(config, harness.broker, harness.ledger, gateway=harness.ecs, telemetry=telemetry).check()

    assert reasons == ["the cluster is INACTIVE", "it may drop records"]


class ThrottlingEcs(FakeEcs):
    """Throttles as AWS does."""

    def __init__(self, rate: float, burst: float) -> None:
        super().__init__(time.time)
        self._bucket = AwsTokenBucket(Quota(rate=rate, burst=burst), time.monotonic)
        self._bucket_lock = threading.Lock()
        self.throttled = 0

    def run_task(self, *arguments: Any, **named: Any) -> RunTaskResult:
        with self._bucket_lock:
            allowed = self._bucket.take()
            self.throttled += not allowed
        return (
            super().run_task(*arguments, **named)
            if allowed
            else RunTaskResult(RunTaskResultKind.THROTTLED, reason="Rate exceeded")
        )


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_share_the_rate_limit_and_are_not_throttled(
    make_harness: Callable[..., LiveWorkerHarness], workers: int
) -> None:
    harness = make_harness(run_task_rate=40, run_task_burst=20)
    harness.ecs = ecs = ThrottlingEcs(40, 20)
    ids = [f"t{number}" for number in range(80)]
    harness.submit(*ids)
    start = time.monotonic()
    for _ in range(workers):
        harness.start_worker()

    wait_until(lambda: len(ecs.tasks) == 80)

    assert time.monotonic() - start >= (80 - 20) / 40 - 0.1
    assert ecs.throttled <= 1
    assert {task["startedBy"].split("/")[1] for task in ecs.tasks.values()} == set(ids)


def test_when_other_programs_use_the_account_the_workers_slow_down_and_launch_all(
    make_harness: Callable[..., LiveWorkerHarness],
) -> None:
    harness = make_harness(run_task_rate=100, run_task_burst=30, retry_base_seconds=0.05)
    harness.ecs = ecs = ThrottlingEcs(20, 5)
    ids = [f"t{number}" for number in range(40)]
    harness.submit(*ids)
    harness.start_worker()
    harness.start_worker()

    wait_until(lambda: len(ecs.tasks) == 40)

    assert "rate_limit.lowered" in harness.emitted
    assert harness.emitted.count("rate_limit.lowered") < ecs.throttled
    records = [record for record in harness.ledger.get(ids) if record]
    assert {(record.attempt, record.launch) for record in records} == {(1, 1)}


def test_a_queue_without_tokens_holds_up_no_other(make_harness: Callable[..., LiveWorkerHarness]) -> None:
    """Of another account."""
    environ = {"AIRFLOW__AWS_ECS_EXECUTOR_THERE__REGION_NAME": "eu-west-1"}
    harness = make_harness(run_task_rate=0.001, run_task_burst=2, concurrency=2)
    keys = {
        "run_task_rate": 0.001,
        "run_task_burst": 2,
        "concurrency": 2,
        "lease_seconds": 5,
        "sweep_after_seconds": 60,
    }
    config = make_config(environ, namespace=harness.config.namespace, **keys)
    harness.submit(*[f"here{number}" for number in range(50)])
    harness.start_worker(config=config, queues=["default", "there"])
    wait_until(lambda: len(harness.ecs.tasks) == 1)

    harness.submit("there", queue="there")

    wait_until(lambda: harness.states("there") == [State.LAUNCHED])
    assert len(harness.ecs.tasks) == 2
