"""How often launched tasks are polled, with and without trusted events."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.protocol.decisions import PollInput, decide_poll
from ecs_queue.protocol.event_health import EventHealth
from ecs_queue.protocol.observation import Observation, observe
from ecs_queue.protocol.polling import (
    SILENT_AFTER,
    SILENT_POLL_INTERVAL,
    TRUSTED_FIRST_POLL_DELAY,
    TRUSTED_POLL_INTERVAL,
    first_poll_wait,
    poll_deadline,
    poll_interval,
    repeats_record,
    sparse_poll_wait,
)
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.retry import Backoff, RecordedDraw

NOW = 1_800_000_000.0


def _observe(**task: Any) -> Observation:
    return observe({"taskArn": "arn:1", "lastStatus": "RUNNING", "desiredStatus": "RUNNING", **task}, "main")


@pytest.mark.parametrize(
    ("age", "interval"),
    [(-1, 1), (0, 1), (29.9, 1), (30, 2), (119, 2), (120, 5), (599, 5), (600, 10), (86_400, 10)],
)
def test_young_tasks_are_polled_faster(age: float, interval: float) -> None:
    assert poll_interval(age, in_flight=1, rate=20) == interval


def test_many_tasks_share_half_of_the_describe_rate_limit() -> None:
    assert poll_interval(0, in_flight=10_000, rate=20) == 10
    assert poll_interval(3600, in_flight=50_000, rate=20) == 50


def test_without_a_rate_limit_only_the_age_counts() -> None:
    assert poll_interval(0, in_flight=1_000_000, rate=0) == 1


class TestPollWaits:
    def test_a_few_tasks_are_all_polled_at_the_same_time(self) -> None:
        health = EventHealth(timely_at=NOW)
        times = {
            round(NOW + wait + sparse_poll_wait(f"t{n}", health, 500, NOW + wait), 3)
            for n, wait in enumerate((0, 7, 50))
        }
        assert len(times) == 1

    def test_many_tasks_are_spread_in_groups_that_fill_their_calls(self) -> None:
        health = EventHealth(timely_at=NOW)
        groups: dict[float, int] = {}
        for number in range(10_000):
            at = round(sparse_poll_wait(f"t{number}", health, 10_000, NOW), 3)
            assert 0 < at <= TRUSTED_POLL_INTERVAL
            groups[at] = groups.get(at, 0) + 1
        assert len(groups) == 10
        assert all(900 < size < 1100 for size in groups.values())

    def test_after_a_long_silence_the_polls_are_more_frequent(self) -> None:
        assert (
            max(sparse_poll_wait(f"t{n}", EventHealth(timely_at=NOW - SILENT_AFTER), 9000, NOW) for n in range(100))
            <= SILENT_POLL_INTERVAL
        )

    def test_the_first_poll_leaves_events_their_time(self) -> None:
        waits = [first_poll_wait(NOW + tenth / 10) for tenth in range(200)]
        assert min(waits) >= TRUSTED_FIRST_POLL_DELAY
        assert max(waits) <= 2 * TRUSTED_FIRST_POLL_DELAY


class TestPollDeadline:
    record = Record(id="a", expires_at=NOW + 60, time_limit=30.0)

    def test_a_task_that_has_not_started_must_be_polled_when_it_expires(self) -> None:
        assert poll_deadline(self.record, _observe(lastStatus="PENDING")) == NOW + 60

    def test_a_task_that_runs_must_be_polled_at_its_time_limit(self) -> None:
        assert poll_deadline(self.record, _observe(startedAt=NOW)) == NOW + 30
        known = msgspec.structs.replace(self.record, started_at=NOW - 5)
        assert poll_deadline(known, _observe()) == NOW + 25

    def test_without_limits_there_is_none(self) -> None:
        assert poll_deadline(Record(id="a"), _observe()) is None
        assert poll_deadline(Record(id="a", expires_at=NOW + 5), _observe(startedAt=NOW)) is None


def _running(**fields: Any) -> Record:
    known = {"id": "a", "arn": "arn:1", "launch": 1, "last_status": "RUNNING", "version": 3, "started_at": NOW - 5}
    return Record(**{**known, "launched_at": NOW - 8, **fields})


def test_a_description_that_says_what_the_record_says_repeats_it() -> None:
    assert repeats_record(_running(), {"lastStatus": "RUNNING", "version": 3, "startedAt": NOW - 5})


@pytest.mark.parametrize(
    ("fields", "task"),
    [
        ({"last_status": "PENDING"}, {}),
        ({"last_status": "STOPPED"}, {"lastStatus": "STOPPED"}),
        ({}, {"lastStatus": "STOPPED"}),
        ({}, {"lastStatus": None}),
        ({}, {"version": 4}),
        ({}, {"version": None}),
        ({"version": 0}, {"version": 0}),
        ({"started_at": 0.0}, {}),
        ({"stop_requested_by": "ann"}, {}),
        ({"time_limit": 3.0}, {}),
    ],
)
def test_a_description_of_anything_else_does_not_repeat_the_record(
    fields: dict[str, Any], task: dict[str, Any]
) -> None:
    assert not repeats_record(_running(**fields), {"lastStatus": "RUNNING", "version": 3, **task})


@given(
    record=st.builds(
        _running,
        version=st.integers(1, 2),
        started_at=st.sampled_from([NOW - 5, NOW - 1]),
        expires_at=st.sampled_from([0.0, NOW - 1, NOW + 1]),
    ),
    others=st.fixed_dictionaries(
        {},
        optional={
            "desiredStatus": st.sampled_from(["RUNNING", "STOPPED"]),
            "startedAt": st.sampled_from([NOW - 5, NOW - 1, None]),
            "stopCode": st.just("UserInitiated"),
            "containers": st.just([{"name": "main", "exitCode": 1}]),
        },
    ),
)
def test_of_a_description_that_repeats_the_record_nothing_follows(record: Record, others: dict[str, Any]) -> None:
    task = {"taskArn": "arn:1", "lastStatus": "RUNNING", "version": record.version, **others}
    assert repeats_record(record, task)
    given_poll = PollInput(
        record=record,
        task=task,
        container_name="main",
        max_attempts=3,
        now=NOW,
        in_flight=1,
        describe_tasks_rate=0.0,
        backoff=Backoff(1.0, 2.0),
    )
    decision = decide_poll(given_poll, RecordedDraw(random.Random(1)))
    assert (decision.is_new, decision.update, decision.stop_cause) == (False, None, "")
    assert decision.wait == poll_interval(8.0, 1, 0.0)
