"""Whole workers, in real time, over an in-memory broker and ledger and a fake ECS."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from ecs_queue.broker import KombuBroker, Outgoing, open_broker
from ecs_queue.config import Config
from ecs_queue.core import envelope
from ecs_queue.core.answers import Kind, RunAnswer
from ecs_queue.core.plan import submission_of
from ecs_queue.core.states import State
from ecs_queue.errors import BrokerUnavailable, ConfigError
from ecs_queue.launcher.worker import Worker
from ecs_queue.ledger import Ledger, open_ledger
from ecs_queue.local.ecs.limits import TokenBucket
from ecs_queue.local.ecs.options import Quota
from ecs_queue.telemetry import Telemetry
from tests.launcher.fake_ecs import FakeEcs, RunCall
from tests.launcher.lab import config_of


class Site:
    """A broker, a ledger and an ECS, and the workers on them."""

    def __init__(self, **keys: float) -> None:
        self.config = config_of(None, namespace=f"t{uuid.uuid4().hex[:12]}", lease_seconds=5, ring_seconds=60, **keys)
        self.broker: KombuBroker = open_broker(self.config)
        self.ledger: Ledger = open_ledger(self.config)
        self.ecs = FakeEcs(time.time)
        self.told: list[str] = []
        self.workers: list[Worker] = []

    def worker(
        self,
        broker: KombuBroker | None = None,
        config: Config | None = None,
        queues: Sequence[str] = ("default",),
    ) -> Worker:
        """A worker that runs."""
        worker = Worker(
            config or self.config,
            broker or self.broker,
            self.ledger,
            queues=queues,
            telemetry=Telemetry(lambda name, fields: self.told.append(name)),
            gateway=self.ecs,
        )
        self.workers.append(worker)
        worker.start()
        return worker

    def submit(self, *ids: str, publish: bool = True, queue: str = "default") -> None:
        for record_id in ids:
            request = envelope.new_request(
                id=record_id, command=["true"], now=time.time(), accept_seconds=1000.0, queue=queue
            )
            body = envelope.encode(request)
            nonce = envelope.nonce_of(self.config.namespace, body)
            self.ledger.put([submission_of(request, body, nonce, 1000.0)])
            if publish:
                self.broker.publish_requests([Outgoing(queue, body)])

    def states(self, *ids: str) -> list[State | None]:
        return [record.state if record else None for record in self.ledger.get(ids)]

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            worker.join()


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Fail unless it holds in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.01)


@pytest.fixture
def make_site() -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(**keys: float) -> Site:
        sites.append(Site(**keys))
        return sites[-1]

    yield make
    for site in sites:
        site.ecs.on_run = lambda call: None
        site.stop()


def test_requests_are_launched_and_followed_to_their_end(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.worker()

    site.submit("a", "b")
    eventually(lambda: len(site.ecs.tasks) == 2)
    for arn in list(site.ecs.tasks):
        site.ecs.end(arn)

    eventually(lambda: site.states("a", "b") == [State.SUCCESS] * 2)


def test_a_worker_that_stops_finishes_its_calls_and_another_takes_the_rest(make_site: Callable[..., Site]) -> None:
    site = make_site(concurrency=2)
    begun, go = threading.Semaphore(0), threading.Event()

    def slow(call: RunCall) -> None:
        begun.release()
        assert go.wait(60)

    site.ecs.on_run = slow
    first = site.worker()
    ids = [f"t{index}" for index in range(8)]
    site.submit(*ids)
    for _ in range(2):
        assert begun.acquire(timeout=30)

    first.stop()
    time.sleep(0.05)
    go.set()
    assert first.join()

    launched = [record_id for record_id, state in zip(ids, site.states(*ids), strict=True) if state is State.LAUNCHED]
    assert len(launched) == len(site.ecs.tasks) == 2
    assert site.broker.backlog("default") == 6

    site.worker()
    eventually(lambda: site.states(*ids) == [State.LAUNCHED] * 8)
    assert len(site.ecs.tasks) == 8


def test_no_more_calls_are_made_at_the_same_time_than_there_are_slots(make_site: Callable[..., Site]) -> None:
    site = make_site(concurrency=3)
    lock, running, most = threading.Lock(), 0, 0

    def count(call: RunCall) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    site.ecs.on_run = count
    ids = [f"t{index}" for index in range(40)]
    site.submit(*ids)
    site.worker()

    eventually(lambda: site.states(*ids) == [State.LAUNCHED] * 40)
    assert most == 3


def test_stopping_ends_in_time_though_a_call_hangs(make_site: Callable[..., Site]) -> None:
    site = make_site(concurrency=1)
    begun, go = threading.Event(), threading.Event()

    def hang(call: RunCall) -> None:
        begun.set()
        assert go.wait(60)

    site.ecs.on_run = hang
    worker = site.worker()
    site.submit("a")
    assert begun.wait(30)

    worker.stop()
    before = time.monotonic()
    ended = worker.join(0.3)

    assert not ended
    assert time.monotonic() - before < 10
    go.set()


def test_stopping_twice_and_without_a_start_does_no_harm(make_site: Callable[..., Site]) -> None:
    site = make_site()
    never_started = Worker(site.config, site.broker, site.ledger, gateway=site.ecs)
    never_started.stop()
    assert never_started.join(1.0)

    worker = site.worker()
    worker.stop()
    worker.stop()

    assert worker.join()
    assert site.told.count("worker.stopping") == 1


class DeadBroker(KombuBroker):
    """A broker that cannot be reached."""

    def consume(self, *arguments: object) -> None:  # type: ignore[override]
        raise BrokerUnavailable


def test_requests_go_on_while_the_broker_cannot_be_reached(make_site: Callable[..., Site]) -> None:
    site = make_site()
    config = config_of(namespace=site.config.namespace, lease_seconds=5, ring_seconds=0.1)
    site.ledger = open_ledger(config)
    site.worker(DeadBroker("memory://", "n", visibility_timeout=1, socket_timeout=1), config)

    site.submit("a", publish=False)

    eventually(lambda: site.states("a") == [State.LAUNCHED])


def test_it_says_that_it_is_there_and_what_it_does(make_site: Callable[..., Site]) -> None:
    site = make_site()
    worker = site.worker()
    site.submit("a")
    eventually(lambda: site.states("a") == [State.LAUNCHED])

    eventually(lambda: [info.name for info in site.ledger.workers()] == [worker.name])

    (info,) = site.ledger.workers()
    assert (info.queues, info.concurrency, info.health) == (["default"], 4, "ok")


def test_a_queue_that_cannot_launch_is_refused_at_the_check(make_site: Callable[..., Site]) -> None:
    site = make_site()
    broken = config_of({"AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": ""})

    with pytest.raises(ConfigError, match="subnet"):
        Worker(broken, site.broker, site.ledger, gateway=site.ecs).check()


def test_what_aws_and_the_ledger_find_is_told_at_the_check(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site()
    told: list[str] = []
    config = config_of({"AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "True"})
    monkeypatch.setattr(site.ecs, "check", lambda target: ["the cluster is INACTIVE"])
    monkeypatch.setattr(site.ledger, "check", lambda: ["it may drop records"])
    telemetry = Telemetry(lambda name, fields: told.append(fields["reason"]))

    Worker(config, site.broker, site.ledger, gateway=site.ecs, telemetry=telemetry).check()

    assert told == ["the cluster is INACTIVE", "it may drop records"]


class LimitedEcs(FakeEcs):
    """Throttles as AWS does."""

    def __init__(self, rate: float, burst: float) -> None:
        super().__init__(time.time)
        self._bucket = TokenBucket(Quota(rate=rate, burst=burst), time.monotonic)
        self._bucket_lock = threading.Lock()
        self.throttled = 0

    def run_task(self, *arguments: Any, **named: Any) -> RunAnswer:
        with self._bucket_lock:
            allowed = self._bucket.take()
            self.throttled += not allowed
        return super().run_task(*arguments, **named) if allowed else RunAnswer(Kind.THROTTLED, reason="Rate exceeded")


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_share_the_quota_and_are_not_throttled(make_site: Callable[..., Site], workers: int) -> None:
    site = make_site(run_task_rate=40, run_task_burst=20)
    site.ecs = ecs = LimitedEcs(40, 20)
    ids = [f"t{number}" for number in range(80)]
    site.submit(*ids)
    start = time.monotonic()
    for _ in range(workers):
        site.worker()

    eventually(lambda: len(ecs.tasks) == 80)

    assert time.monotonic() - start >= (80 - 20) / 40 - 0.1
    assert ecs.throttled <= 1
    assert {task["startedBy"].split("/")[1] for task in ecs.tasks.values()} == set(ids)


def test_where_somebody_else_uses_the_account_the_workers_slow_down_and_launch_all(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(run_task_rate=100, run_task_burst=30, retry_base_seconds=0.05)
    site.ecs = ecs = LimitedEcs(20, 5)
    ids = [f"t{number}" for number in range(40)]
    site.submit(*ids)
    site.worker()
    site.worker()

    eventually(lambda: len(ecs.tasks) == 40)

    assert "quota.lowered" in site.told
    assert site.told.count("quota.lowered") < ecs.throttled
    records = [record for record in site.ledger.get(ids) if record]
    assert {(record.attempt, record.launch) for record in records} == {(1, 1)}


def test_a_queue_without_tokens_holds_up_no_other(make_site: Callable[..., Site]) -> None:
    """Of another account."""
    environ = {"AIRFLOW__AWS_ECS_EXECUTOR_THERE__REGION_NAME": "eu-west-1"}
    site = make_site(run_task_rate=0.001, run_task_burst=2, concurrency=2)
    keys = {"run_task_rate": 0.001, "run_task_burst": 2, "concurrency": 2, "lease_seconds": 5, "ring_seconds": 60}
    config = config_of(environ, namespace=site.config.namespace, **keys)
    site.submit(*[f"here{number}" for number in range(50)])
    site.worker(config=config, queues=["default", "there"])
    eventually(lambda: len(site.ecs.tasks) == 1)

    site.submit("there", queue="there")

    eventually(lambda: site.states("there") == [State.LAUNCHED])
    assert len(site.ecs.tasks) == 2
