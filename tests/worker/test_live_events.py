"""Whole workers with the local ECS's events in moto's SQS: everything real but AWS."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ecs_queue.broker import open_broker
from ecs_queue.config import load_config
from ecs_queue.ledger import open_ledger
from ecs_queue.local.ecs import (
    EventFaultOptions,
    FaultOptions,
    LocalEcs,
    LocalEcsOptions,
    TimerRunner,
    local_environment,
)
from ecs_queue.protocol.event_health import EventFact, EventFactKind, cluster_source, queue_source
from ecs_queue.protocol.states import State
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.worker import Worker
from tests.wait import wait_until
from tests.worker.live_harness import LiveWorkerHarness

pytestmark = [pytest.mark.server, pytest.mark.slow]


class LiveEventHarness(LiveWorkerHarness):
    """Live workers over the local ECS. `event_counts` has the number of telemetry events by name."""

    def __init__(self, url: str, server: LocalEcs) -> None:
        environ = {
            **local_environment(server.endpoint_url, "memory://"),
            "AIRFLOW__ECS_QUEUE__EVENT_QUEUE_URL": url,
            "AIRFLOW__ECS_QUEUE__NAMESPACE": f"t{uuid.uuid4().hex[:12]}",
        }
        self.config = load_config(environ=environ)
        self.broker = open_broker(self.config)
        self.ledger = open_ledger(self.config)
        self.local_ecs = server
        self.event_counts: Counter[str] = Counter()
        self.workers: list[Worker] = []

    def run_worker(self) -> Worker:
        telemetry = Telemetry(lambda name, fields: self.event_counts.update([name]))
        worker = Worker(self.config, self.broker, self.ledger, telemetry=telemetry)
        self.workers.append(worker)
        worker.start()
        return worker

    def trust_events(self) -> None:
        arn = "arn:aws:ecs:us-east-1:123456789012:task/local/1"
        source = cluster_source(arn, queue_source(self.config.event_queue_url or ""))
        self.ledger.record_event_facts([EventFact(source, EventFactKind.TIMELY, self.ledger.now())])


MakeHarness = Callable[..., LiveEventHarness]


@pytest.fixture
def make_harness(sqs: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeHarness]:
    harnesses: list[LiveEventHarness] = []
    servers: list[LocalEcs] = []

    def make(faults: FaultOptions | None = None, **event_faults: float) -> LiveEventHarness:
        url = str(sqs.create_queue(QueueName=f"events-{uuid.uuid4().hex}")["QueueUrl"])
        chances = EventFaultOptions(**event_faults)  # type: ignore[arg-type] # never `seed`
        options = LocalEcsOptions(event_queue_url=url, event_faults=chances, faults=faults or FaultOptions())
        servers.append(LocalEcs(options, TimerRunner()))
        servers[-1].start()
        for name, value in local_environment(servers[-1].endpoint_url, "memory://").items():
            if name.startswith("AWS_"):
                monkeypatch.setenv(name, value)
        harnesses.append(LiveEventHarness(url, servers[-1]))
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.stop_workers()
    for server in servers:
        server.stop()


def test_two_workers_follow_tasks_by_doubled_and_reordered_events_alone(make_harness: MakeHarness) -> None:
    no_polls = FaultOptions(server_error=1.0, operations=("DescribeTasks",))
    harness = make_harness(no_polls, duplicate=0.5, reorder=0.5)
    for _ in range(2):
        harness.run_worker()
    ids = [f"t{number}" for number in range(30)]

    harness.submit(*ids)
    wait_until(lambda: harness.states(*ids) == [State.SUCCESS] * len(ids), seconds=60)

    assert harness.event_counts["request.ended"] == len(ids)
    assert harness.event_counts["ecs_events.skipped"] == 0
    assert harness.local_ecs.stats()["calls"].get("RunTask") == len(ids)


def test_what_a_killed_worker_had_received_and_foreign_and_broken_messages_do_no_harm(
    make_harness: MakeHarness, sqs: Any
) -> None:
    harness = make_harness()
    url = harness.config.event_queue_url
    harness.trust_events()
    sqs.send_message(QueueUrl=url, MessageBody="no event")
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"source": "aws.ecs", "detail-type": "Other"}))
    harness.run_worker()
    harness.submit("a")
    wait_until(lambda: harness.local_ecs.stats()["tasks"].get("STOPPED") == 1)
    # A reader that dies with what it has received: hidden for a second, never deleted.
    sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=1)

    wait_until(lambda: harness.states("a") == [State.SUCCESS], seconds=60)

    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

    def left() -> list[str]:
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return [attributes[name] for name in names]

    wait_until(lambda: left() == ["0", "0"], seconds=60)
    assert harness.event_counts["ecs_events.foreign"] == harness.event_counts["ecs_events.skipped"] == 1


def test_when_all_events_are_lost_polls_bring_the_results(make_harness: MakeHarness) -> None:
    harness = make_harness(drop=1.0)
    harness.run_worker()

    harness.submit("a", "b")

    wait_until(lambda: harness.states("a", "b") == [State.SUCCESS] * 2, seconds=60)


def test_a_worker_that_waits_for_events_stops_in_time(make_harness: MakeHarness) -> None:
    harness = make_harness()
    worker = harness.run_worker()
    wait_until(lambda: any(name.startswith("queue:") for name in harness.ledger.get_event_health()), seconds=60)

    before = time.monotonic()
    worker.stop()
    assert worker.join()

    assert time.monotonic() - before < 9
