"""Whole workers, in real time, over an in-memory broker and ledger and a fake ECS."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from ecs_queue.broker import KombuBroker
from ecs_queue.errors import BrokerUnavailable, ConfigError, UnusableServer
from ecs_queue.findings import Reporter
from ecs_queue.ledger import MemoryLedger, open_ledger
from ecs_queue.local.ecs.faults import AwsTokenBucket
from ecs_queue.local.ecs.options import Quota
from ecs_queue.protocol.ecs_results import EcsError, EcsErrorKind, RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.states import State
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.worker import Worker
from tests.fake_ecs import FakeEcs, RunTaskCall
from tests.wait import wait_until
from tests.worker.harness import FlakyLedger, make_config
from tests.worker.live_harness import LiveWorkerHarness
from tests.worker.warm_harness import WARM


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


def test_requests_that_find_no_idle_runner_leave_room_for_launches(
    make_harness: Callable[..., LiveWorkerHarness],
) -> None:
    harness = make_harness(max_in_flight=3)
    calls: list[str] = []
    harness.ledger = ledger = FlakyLedger(cast(MemoryLedger, harness.ledger))
    ledger.on_call = lambda operation, when: calls.append(operation) if when == "after" else None
    config = make_config(WARM, namespace=harness.config.namespace, max_in_flight=3, run_task_rate=20)
    harness.start_worker(config=config)
    wait_until(lambda: calls.count("list_paused_queues") >= 2, "the worker knows how many tasks it may start")

    harness.submit(*(f"t{index}" for index in range(12)))

    wait_until(lambda: len(harness.ecs.run_task_calls) == 3)


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

    def consume_requests(self, *arguments: Any) -> Any:
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


def test_a_worker_that_has_stopped_in_order_is_listed_no_more(make_harness: Callable[..., LiveWorkerHarness]) -> None:
    harness = make_harness()
    first, second = harness.start_worker(), harness.start_worker()
    wait_until(lambda: len(harness.ledger.list_workers()) == 2)
    first.stop()
    assert first.join()
    assert [info.name for info in harness.ledger.list_workers()] == [second.name]


def test_a_queue_that_cannot_launch_is_refused_at_the_check(make_harness: Callable[..., LiveWorkerHarness]) -> None:
    harness = make_harness()
    broken = make_config({"AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": ""})

    with pytest.raises(ConfigError, match="subnet"):
        Worker(broken, harness.broker, harness.ledger, gateway=harness.ecs).check()


def test_findings_of_aws_and_the_ledger_are_logged_at_their_level_with_what_they_are_about(
    make_harness: Callable[..., LiveWorkerHarness], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ecs_queue")
    harness = make_harness()
    config = make_config({"AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "True"})
    monkeypatch.setattr(
        harness.ecs,
        "check_cluster",
        lambda target, reporter: reporter.error("aws.cluster", "it is INACTIVE", "use another"),
    )
    reporter = Reporter("ledger")
    found = [
        reporter.error("a", "it may drop records", "do this"),
        reporter.ok("b", "good"),
        reporter.warning("c", "it may lose a second", "do that"),
        reporter.info("d", "INFO"),
    ]
    monkeypatch.setattr(harness.ledger, "check_server", lambda: found)
    caplog.clear()

    Worker(config, harness.broker, harness.ledger, gateway=harness.ecs).check()

    assert [(entry.levelno, entry.getMessage()) for entry in caplog.records] == [
        (logging.ERROR, "ledger: it may drop records; do this"),
        (logging.WARNING, "ledger: it may lose a second; do that"),
        (logging.INFO, "ledger: INFO"),
        (logging.ERROR, "queue default: it is INACTIVE; use another"),
    ]


def test_where_no_launch_type_is_set_the_cluster_is_asked_for_its_default_strategy(
    make_harness: Callable[..., LiveWorkerHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = make_harness()
    reasons: list[str] = []
    telemetry = Telemetry(lambda name, fields: reasons.append(fields["reason"]))
    unset = {"AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE": "", "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": ""}
    answers: list[Any] = [
        ({"capacityProvider": "my-instances", "weight": 1},),
        EcsError(EcsErrorKind.DENIED, "it is denied"),
    ]
    monkeypatch.setattr(harness.ecs, "default_strategy", lambda target: answers.pop(0))

    def new_worker(environ: dict[str, str]) -> Worker:
        return Worker(make_config(environ), harness.broker, harness.ledger, gateway=harness.ecs, telemetry=telemetry)

    new_worker(unset).check()  # instances need no subnets
    assert reasons == []
    with pytest.raises(ConfigError, match="subnet"):
        new_worker(unset).check()
    new_worker({}).check()  # a launch type is set: no question

    answers.append(EcsError(EcsErrorKind.DENIED, "it is denied"))
    new_worker({"AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE": ""}).check()
    assert len(reasons) == 1
    assert "the cluster's default strategy cannot be read: it is denied: tasks run on FARGATE" in reasons[0]


def test_a_worker_refuses_a_server_on_which_it_could_launch_nothing(
    make_harness: Callable[..., LiveWorkerHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = make_harness()
    finding = Reporter("ledger").unusable("server.persistence", "durability = aof needs WAITAOF", "use Valkey")
    monkeypatch.setattr(harness.ledger, "check_server", lambda: [finding])

    with pytest.raises(UnusableServer, match="ledger: durability = aof needs WAITAOF; use Valkey"):
        Worker(make_config(), harness.broker, harness.ledger, gateway=harness.ecs).check()


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
