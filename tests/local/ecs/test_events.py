"""The local ECS's events in moto's SQS: their form, order and injected faults."""

from __future__ import annotations

import json
import re
import time
import uuid
from typing import Any

import pytest

from ecs_queue.ecs.task_events import decode_event
from ecs_queue.errors import ConfigError
from ecs_queue.local.ecs import EventFaultOptions, LocalEcs
from ecs_queue.local.ecs.events import EventSender, build_event
from ecs_queue.protocol.observation import observe
from tests.local.ecs.checked_client import (
    command_override,
    describe_task,
    find_shape_violations,
    run_task,
    service_model,
    wait_for_status,
)
from tests.local.ecs.conftest import StartEcs

PATIENCE_SECONDS = 30.0


@pytest.fixture
def url(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName=f"events-{uuid.uuid4().hex}")["QueueUrl"])


def received(sqs: Any, url: str, number: int) -> list[dict[str, Any]]:
    """Receive exactly `number` events."""
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(found) < number:
        assert time.monotonic() < deadline, found
        response = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        found += [json.loads(message["Body"]) for message in response.get("Messages") or ()]
    assert len(found) == number
    return found


def until_counted(server: LocalEcs, number: int) -> None:
    """Wait until the events are counted: that is after SQS's response, so it may be after they were received."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while server.stats()["events"] < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert server.stats()["events"] == number


def test_each_version_of_a_task_is_sent_as_eventbridge_would(start_ecs: StartEcs, sqs: Any, url: str) -> None:
    server, ecs = start_ecs(event_queue_url=url)
    arn = run_task(ecs, overrides=command_override("exit", "3"), startedBy="ecs-queue/job/abcd1234/1")
    shown = wait_for_status(ecs, arn)

    events = received(sqs, url, shown["version"])

    details = sorted((event["detail"] for event in events), key=lambda detail: detail["version"])
    assert [detail["version"] for detail in details] == list(range(1, shown["version"] + 1))
    statuses = [detail["lastStatus"] for detail in details]
    assert list(dict.fromkeys(statuses)) == ["PROVISIONING", "PENDING", "RUNNING", "DEPROVISIONING", "STOPPED"]
    for event in events:
        assert event["source"] == "aws.ecs"
        assert event["detail-type"] == "ECS Task State Change"
        assert event["resources"] == [arn]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", event["time"])
    assert len({event["id"] for event in events}) == len(events)
    until_counted(server, len(events))


def test_an_event_has_the_same_facts_as_describe_tasks(start_ecs: StartEcs, sqs: Any, url: str) -> None:
    _, ecs = start_ecs(event_queue_url=url)
    arn = run_task(ecs, overrides=command_override("exit", "3"), startedBy="ecs-queue/job/abcd1234/1")
    shown = wait_for_status(ecs, arn)
    last = max(received(sqs, url, shown["version"]), key=lambda event: event["detail"]["version"])

    event = decode_event(json.dumps(last), "ecs-queue")

    assert event is not None
    polled, notified = observe(describe_task(ecs, arn), "main"), observe(event.task, "main")
    assert (notified.exit_code, notified.has_ended, notified.version) == (3, True, polled.version)
    assert notified.stopped_at == pytest.approx(polled.stopped_at, abs=0.01)
    assert (event.record_id, event.nonce, event.launch) == ("job", "abcd1234", 1)


def test_the_detail_has_the_members_of_a_task_and_times_as_text(start_ecs: StartEcs, sqs: Any, url: str) -> None:
    _, ecs = start_ecs(event_queue_url=url)
    shown = wait_for_status(ecs, run_task(ecs, overrides=command_override("exit", "0")))
    shape = service_model().shape_for("Task")
    for event in received(sqs, url, shown["version"]):
        detail = event["detail"]
        assert detail.pop("updatedAt").endswith("Z")
        times = {name: value for name, value in detail.items() if name.endswith("At")}
        assert times
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z", value) for value in times.values())
        assert find_shape_violations(shape, {name: value for name, value in detail.items() if name not in times}) == []


def test_duplicate_events_are_identical(start_ecs: StartEcs, sqs: Any, url: str) -> None:
    _, ecs = start_ecs(event_queue_url=url, event_faults=EventFaultOptions(duplicate=1.0, reorder=1.0))
    shown = wait_for_status(ecs, run_task(ecs, overrides=command_override("exit", "0")))
    events = received(sqs, url, 2 * shown["version"])
    texts = [json.dumps(event, sort_keys=True) for event in events]
    assert sorted(texts) == sorted(2 * list(set(texts)))


def test_dropped_events_are_not_sent_and_change_nothing_else(start_ecs: StartEcs, sqs: Any, url: str) -> None:
    server, ecs = start_ecs(event_queue_url=url, event_faults=EventFaultOptions(drop=1.0))
    wait_for_status(ecs, run_task(ecs, overrides=command_override("exit", "0")))
    assert received(sqs, url, 0) == []
    assert server.stats()["events"] == 0


def test_an_unreachable_queue_delays_no_task(start_ecs: StartEcs) -> None:
    server, ecs = start_ecs(event_queue_url="http://127.0.0.1:1/123456789012/events")
    wait_for_status(ecs, run_task(ecs, overrides=command_override("exit", "0")))
    assert server.stats()["events"] == 0


def test_delays_are_within_their_bound_and_the_same_seed_delays_the_same() -> None:
    description = json.dumps({"taskArn": "arn:aws:ecs:us-east-1:1:task/local/ab", "version": 1}).encode()
    faults = EventFaultOptions(delay=0.5, reorder=0.5, delay_seconds=10.0, seed=3)

    def delays() -> list[float]:
        sender = EventSender("http://127.0.0.1:1/1/q", "us-east-1", "1", faults, lambda: 0.0)
        start = time.monotonic()
        for _ in range(50):
            sender.send(description)
        return [round(at - start) for at, _, _ in sorted(sender._queue, key=lambda entry: entry[1])]

    first = delays()
    assert first == delays()
    assert max(first) <= 10
    assert len(set(first)) > 3


def test_an_event_keeps_members_that_are_no_times() -> None:
    description = json.dumps({"taskArn": "arn:aws:ecs:us-east-1:1:task/local/ab", "version": 1, "createdAt": 1.5})
    detail = json.loads(build_event(description.encode(), "us-east-1", "1", 86400.0))["detail"]
    assert detail["createdAt"] == "1970-01-01T00:00:01.500Z"
    assert detail["updatedAt"] == "1970-01-02T00:00:00.000Z"


def test_a_probability_beyond_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="duplicate"):
        EventFaultOptions(duplicate=1.5)
