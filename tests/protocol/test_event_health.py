"""When ECS's events are trusted, and what a poll says about them."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.protocol.event_health import (
    DISTRUST_SECONDS,
    LATE_AFTER,
    UNREAD_AFTER,
    EventHealth,
    cluster_of_task,
    cluster_source,
    is_event_missed,
    queue_of_source,
    queue_source,
)
from ecs_queue.protocol.observation import Observation, observe
from ecs_queue.protocol.record import Record

NOW = 1_800_000_000.0
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/jobs/0123456789abcdef0123456789abcdef"


def observed(**task: Any) -> Observation:
    return observe({"taskArn": ARN, "version": 3, "lastStatus": "RUNNING", "desiredStatus": "RUNNING", **task}, "main")


def observed_stop(at: float) -> Observation:
    return observed(lastStatus="STOPPED", startedAt=at - 5, stoppedAt=at)


@pytest.mark.parametrize(
    ("health", "trusted"),
    [
        (EventHealth(), False),
        (EventHealth(timely_at=NOW), True),
        (EventHealth(timely_at=NOW - 10_000), True),
        (EventHealth(timely_at=NOW - 1, missed_at=NOW), False),
        (EventHealth(timely_at=NOW, missed_at=NOW - DISTRUST_SECONDS + 1), False),
        (EventHealth(timely_at=NOW, late_at=NOW - DISTRUST_SECONDS + 1), False),
        (EventHealth(timely_at=NOW, missed_at=NOW - DISTRUST_SECONDS, late_at=NOW - DISTRUST_SECONDS), True),
        (EventHealth(timely_at=NOW - DISTRUST_SECONDS - 1, missed_at=NOW - DISTRUST_SECONDS), False),
        (EventHealth(drained_at=NOW), False),
    ],
)
def test_events_are_trusted_while_they_come_and_nothing_was_late_or_missing(health: EventHealth, trusted: bool) -> None:
    assert health.is_trusted(NOW, queue_drained_at=NOW - 1) is trusted


def test_nothing_is_trusted_while_the_queue_is_not_read() -> None:
    assert not EventHealth(timely_at=NOW - UNREAD_AFTER).is_trusted(NOW, queue_drained_at=NOW - UNREAD_AFTER)
    assert EventHealth(timely_at=NOW - UNREAD_AFTER).is_trusted(NOW, queue_drained_at=NOW - UNREAD_AFTER + 1)
    assert EventHealth(timely_at=NOW - UNREAD_AFTER + 1).is_trusted(NOW, queue_drained_at=0.0)


def test_a_source_is_a_cluster_and_the_queue_of_its_events() -> None:
    queue = queue_source("https://sqs.eu-west-1.amazonaws.com/123456789012/events")
    source = cluster_source(ARN, queue)
    assert source.startswith("eu-west-1/123456789012/jobs@queue:")
    assert queue_of_source(source) == queue
    assert "123456789012/events" not in source


@pytest.mark.parametrize(
    ("arn", "source"),
    [
        (ARN, "eu-west-1/123456789012/jobs"),
        ("arn:aws:ecs:eu-west-1:123456789012:task/0123456789abcdef", "eu-west-1/123456789012/"),
        ("arn:aws-cn:ecs:cn-north-1:1:task/a/b", "cn-north-1/1/a"),
        ("arn:aws:ecs:eu-west-1:123456789012:cluster/jobs", ""),
        ("arn:aws:ecs:eu-west-1:123456789012:task", ""),
        ("nonsense", ""),
        ("", ""),
    ],
)
def test_the_cluster_is_in_the_tasks_arn(arn: str, source: str) -> None:
    assert cluster_of_task(arn) == source


class TestIsEventMissed:
    def test_an_end_without_an_event_is_missed_after_a_while(self) -> None:
        record = Record(id="a", version=2)
        assert not is_event_missed(record, observed_stop(NOW - LATE_AFTER), NOW)
        assert is_event_missed(record, observed_stop(NOW - LATE_AFTER - 1), NOW)

    def test_a_change_in_the_record_is_not_missed(self) -> None:
        ended = Record(id="a", version=3, last_status="STOPPED")
        assert not is_event_missed(ended, observed_stop(NOW - 100), NOW)
        running = Record(id="a", version=4, last_status="RUNNING")
        assert not is_event_missed(running, observed(startedAt=NOW - LATE_AFTER - 1), NOW)

    def test_an_end_at_the_version_of_the_record_is_missed(self) -> None:
        running = Record(id="a", version=3, last_status="RUNNING", started_at=NOW - 200)
        assert is_event_missed(running, observed_stop(NOW - 100), NOW)

    def test_a_start_without_an_event_is_missed(self) -> None:
        observation = observed(startedAt=NOW - LATE_AFTER - 1)
        assert is_event_missed(Record(id="a", version=1), observation, NOW)
        assert not is_event_missed(Record(id="a", version=1, started_at=NOW - 50), observation, NOW)

    def test_a_change_without_a_time_proves_nothing(self) -> None:
        assert not is_event_missed(Record(id="a", version=1), observed(lastStatus="PENDING"), NOW)
        assert not is_event_missed(Record(id="a", version=1), observed(lastStatus="STOPPED"), NOW)
