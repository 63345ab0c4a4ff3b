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
from ecs_queue.core.flow import Fact, Note, queue_source, source_of
from ecs_queue.core.states import State
from ecs_queue.launcher.worker import Worker
from ecs_queue.ledger import open_ledger
from ecs_queue.local.ecs import EventFaults, Faults, LocalEcs, LocalEcsOptions, TimerRunner, local_environment
from ecs_queue.telemetry import Telemetry
from tests.launcher.test_worker import Site, eventually


class EventSite(Site):
    """A site over the local ECS. `ends`: the tasks' states are in `states`; `counts` has the events of telemetry."""

    def __init__(self, url: str, server: LocalEcs) -> None:
        environ = {
            **local_environment(server.endpoint_url, "memory://"),
            "AIRFLOW__ECS_QUEUE__EVENT_QUEUE_URL": url,
            "AIRFLOW__ECS_QUEUE__NAMESPACE": f"t{uuid.uuid4().hex[:12]}",
        }
        self.config = load_config(environ=environ)
        self.broker = open_broker(self.config)
        self.ledger = open_ledger(self.config)
        self.server = server
        self.counts: Counter[str] = Counter()
        self.workers: list[Worker] = []

    def start(self) -> Worker:
        telemetry = Telemetry(lambda name, fields: self.counts.update([name]))
        worker = Worker(self.config, self.broker, self.ledger, telemetry=telemetry)
        self.workers.append(worker)
        worker.start()
        return worker

    def trust(self) -> None:
        arn = "arn:aws:ecs:us-east-1:123456789012:task/local/1"
        source = source_of(arn, queue_source(self.config.event_queue_url or ""))
        self.ledger.note_events([Note(source, Fact.TIMELY, self.ledger.now())])


MakeSite = Callable[..., EventSite]


@pytest.fixture
def make_site(sqs: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeSite]:
    sites: list[EventSite] = []
    servers: list[LocalEcs] = []

    def make(faults: Faults | None = None, **event_faults: float) -> EventSite:
        url = str(sqs.create_queue(QueueName=f"events-{uuid.uuid4().hex}")["QueueUrl"])
        chances = EventFaults(**event_faults)  # type: ignore[arg-type] # never `seed`
        options = LocalEcsOptions(events_to=url, event_faults=chances, faults=faults or Faults())
        servers.append(LocalEcs(options, TimerRunner()))
        servers[-1].start()
        for name, value in local_environment(servers[-1].endpoint_url, "memory://").items():
            if name.startswith("AWS_"):
                monkeypatch.setenv(name, value)
        sites.append(EventSite(url, servers[-1]))
        return sites[-1]

    yield make
    for site in sites:
        site.stop()
    for server in servers:
        server.stop()


def test_two_workers_follow_tasks_by_doubled_and_reordered_events_alone(make_site: MakeSite) -> None:
    no_polls = Faults(server_error=1.0, operations=("DescribeTasks",))
    site = make_site(no_polls, double=0.5, reorder=0.5)
    for _ in range(2):
        site.start()
    ids = [f"t{number}" for number in range(30)]

    site.submit(*ids)
    eventually(lambda: site.states(*ids) == [State.SUCCESS] * len(ids), 60)

    assert site.counts["request.ended"] == len(ids)
    assert site.counts["event.unusable"] == 0
    assert site.server.stats()["calls"].get("RunTask") == len(ids)


def test_what_a_killed_worker_had_received_and_foreign_and_broken_messages_do_no_harm(
    make_site: MakeSite, sqs: Any
) -> None:
    site = make_site()
    url = site.config.event_queue_url
    site.trust()
    sqs.send_message(QueueUrl=url, MessageBody="no event")
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"source": "aws.ecs", "detail-type": "Other"}))
    site.start()
    site.submit("a")
    eventually(lambda: site.server.stats()["tasks"].get("STOPPED") == 1)
    # A reader that dies with what it has received: hidden for a second, never deleted.
    sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=1)

    eventually(lambda: site.states("a") == [State.SUCCESS], 60)

    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

    def left() -> list[str]:
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return [attributes[name] for name in names]

    eventually(lambda: left() == ["0", "0"], 60)
    assert site.counts["event.foreign"] == site.counts["event.unusable"] == 1


def test_when_all_events_are_lost_polls_bring_the_results(make_site: MakeSite) -> None:
    site = make_site(drop=1.0)
    site.start()

    site.submit("a", "b")

    eventually(lambda: site.states("a", "b") == [State.SUCCESS] * 2, 60)


def test_a_worker_that_waits_for_events_stops_in_time(make_site: MakeSite) -> None:
    site = make_site()
    worker = site.start()
    eventually(lambda: any(name.startswith("queue:") for name in site.ledger.event_flows()), 60)

    before = time.monotonic()
    worker.stop()
    assert worker.join()

    assert time.monotonic() - before < 9
