"""When ECS's events are trusted, and how often tasks are looked at then."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ecs_queue.core.flow import (
    FIRST_LOOK,
    HOLD,
    LATE_AFTER,
    SILENCE,
    SILENT,
    SLOW,
    UNREAD,
    Flow,
    cluster_of,
    deadline_of,
    first_look,
    is_missed,
    queue_of,
    queue_source,
    slow_look,
    source_of,
)
from ecs_queue.core.record import Record
from ecs_queue.core.verdict import Observation, observe

NOW = 1_800_000_000.0
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/jobs/0123456789abcdef0123456789abcdef"


def look(**task: Any) -> Observation:
    return observe({"taskArn": ARN, "version": 3, "lastStatus": "RUNNING", "desiredStatus": "RUNNING", **task}, "main")


def stopped(at: float) -> Observation:
    return look(lastStatus="STOPPED", startedAt=at - 5, stoppedAt=at)


@pytest.mark.parametrize(
    ("flow", "trusted"),
    [
        (Flow(), False),
        (Flow(timely=NOW), True),
        (Flow(timely=NOW - 10_000), True),
        (Flow(timely=NOW - 1, missed=NOW), False),
        (Flow(timely=NOW, missed=NOW - HOLD + 1), False),
        (Flow(timely=NOW, late=NOW - HOLD + 1), False),
        (Flow(timely=NOW, missed=NOW - HOLD, late=NOW - HOLD), True),
        (Flow(timely=NOW - HOLD - 1, missed=NOW - HOLD), False),
        (Flow(drained=NOW), False),
    ],
)
def test_events_are_trusted_while_they_come_and_nothing_was_late_or_missing(flow: Flow, trusted: bool) -> None:
    assert flow.is_trusted(NOW, drained=NOW - 1) is trusted


def test_nothing_is_trusted_while_nobody_reads_the_queue() -> None:
    assert not Flow(timely=NOW - UNREAD).is_trusted(NOW, drained=NOW - UNREAD)
    assert Flow(timely=NOW - UNREAD).is_trusted(NOW, drained=NOW - UNREAD + 1)
    assert Flow(timely=NOW - UNREAD + 1).is_trusted(NOW, drained=0.0)


def test_a_source_is_a_cluster_and_the_queue_of_its_events() -> None:
    queue = queue_source("https://sqs.eu-west-1.amazonaws.com/123456789012/events")
    source = source_of(ARN, queue)
    assert source.startswith("eu-west-1/123456789012/jobs@queue:")
    assert queue_of(source) == queue
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
    assert cluster_of(arn) == source


class TestMissed:
    def test_an_end_that_nobody_told_is_missed_after_a_while(self) -> None:
        record = Record(id="a", version=2)
        assert not is_missed(record, stopped(NOW - LATE_AFTER), NOW)
        assert is_missed(record, stopped(NOW - LATE_AFTER - 1), NOW)

    def test_what_the_ledger_knows_is_not_missed(self) -> None:
        assert not is_missed(Record(id="a", version=3), stopped(NOW - 100), NOW)

    def test_a_start_that_nobody_told_is_missed(self) -> None:
        seen = look(startedAt=NOW - LATE_AFTER - 1)
        assert is_missed(Record(id="a", version=1), seen, NOW)
        assert not is_missed(Record(id="a", version=1, started_at=NOW - 50), seen, NOW)

    def test_a_change_without_a_time_proves_nothing(self) -> None:
        assert not is_missed(Record(id="a", version=1), look(lastStatus="PENDING"), NOW)
        assert not is_missed(Record(id="a", version=1), look(lastStatus="STOPPED"), NOW)


class TestLooks:
    def test_a_few_tasks_are_all_looked_at_together(self) -> None:
        flow = Flow(timely=NOW)
        times = {round(NOW + wait + slow_look(f"t{n}", flow, 500, NOW + wait), 3) for n, wait in enumerate((0, 7, 50))}
        assert len(times) == 1

    def test_many_tasks_are_spread_in_parts_that_fill_their_calls(self) -> None:
        flow = Flow(timely=NOW)
        parts: dict[float, int] = {}
        for number in range(10_000):
            at = round(slow_look(f"t{number}", flow, 10_000, NOW), 3)
            assert 0 < at <= SLOW
            parts[at] = parts.get(at, 0) + 1
        assert len(parts) == 10
        assert all(900 < size < 1100 for size in parts.values())

    def test_after_a_long_silence_the_looks_are_more_frequent(self) -> None:
        assert max(slow_look(f"t{n}", Flow(timely=NOW - SILENCE), 9000, NOW) for n in range(100)) <= SILENT

    def test_the_first_look_leaves_events_their_time(self) -> None:
        waits = [first_look(NOW + tenth / 10) for tenth in range(200)]
        assert min(waits) >= FIRST_LOOK
        assert max(waits) <= 2 * FIRST_LOOK


class TestDeadlines:
    record = Record(id="a", expires_at=NOW + 60, time_limit=30.0)

    def test_a_task_that_has_not_started_must_be_looked_at_when_it_expires(self) -> None:
        assert deadline_of(self.record, look(lastStatus="PENDING")) == NOW + 60

    def test_a_task_that_runs_must_be_looked_at_at_its_time_limit(self) -> None:
        assert deadline_of(self.record, look(startedAt=NOW)) == NOW + 30
        known = msgspec.structs.replace(self.record, started_at=NOW - 5)
        assert deadline_of(known, look()) == NOW + 25

    def test_without_limits_there_is_none(self) -> None:
        assert deadline_of(Record(id="a"), look()) is None
        assert deadline_of(Record(id="a", expires_at=NOW + 5), look(startedAt=NOW)) is None
