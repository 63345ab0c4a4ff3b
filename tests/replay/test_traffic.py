"""Recorded traffic: what is read from a journal, and its rhythm when it is played."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ecs_queue.journal import JournalEvent
from ecs_queue.journal.redact import redact
from ecs_queue.messages import envelope
from ecs_queue.replay.traffic import RecordedRequest, is_test_namespace, read_traffic, submit_traffic

START = 1_800_000_000.0


def submitted_event(record_id: str, after: float, **fields: Any) -> JournalEvent:
    request = envelope.new_request(
        id=record_id, command=["run", record_id], now=START + after, accept_seconds=60, **fields
    )
    data = {"queue": "q", "envelope": redact(msgspec.json.decode(envelope.encode(request)))}
    return JournalEvent(v=1, seq="1-0.0", at=START + after, name="request.submitted", id=record_id, data=data)


def recorded_request(offset_seconds: float) -> RecordedRequest:
    return RecordedRequest(
        id=f"at-{offset_seconds}", offset_seconds=offset_seconds, task={"queue": "default"}, redacted_paths=[]
    )


class ReplayHarness:
    """A clock that moves when somebody sleeps; `submits` take time."""

    def __init__(self, submit_seconds: float = 0.0) -> None:
        self.now = 100.0
        self.submit_seconds = submit_seconds
        self.submissions: list[tuple[float, list[str]]] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def submit(self, batch: Sequence[RecordedRequest]) -> None:
        self.submissions.append((round(self.now - 100.0, 6), [one.id for one in batch]))
        self.now += self.submit_seconds


def test_requests_are_taken_in_the_order_of_their_arrival_with_all_that_the_caller_said() -> None:
    config = {"cpu": 512}
    events = [
        submitted_event("late", 7.5, queue="etl", priority=9),
        submitted_event("early", 5.0, executor_config=config, expires_in=30.0, time_limit=9.0, relaunch="any_failure"),
        JournalEvent(v=1, seq="1-0.1", at=START, name="launch.started", id="early"),
    ]

    traffic = read_traffic(events)

    assert [(one.id, one.offset_seconds) for one in traffic.requests] == [("early", 0.0), ("late", 2.5)]
    assert traffic.requests[0].task == {
        "queue": "default",
        "command": ["run", "early"],
        "executor_config": config,
        "priority": 0,
        "expires_in": 30.0,
        "time_limit": 9.0,
        "relaunch": "any_failure",
    }
    assert (traffic.duration_seconds, traffic.queue_counts, traffic.redacted_count, traffic.unreadable_count) == (
        2.5,
        {"default": 1, "etl": 1},
        0,
        0,
    )


def test_requests_with_hidden_secrets_and_unreadable_ones_are_counted() -> None:
    secret = {"environment": [{"name": "TOKEN", "value": "x"}]}
    sealed = JournalEvent(
        v=1, seq="1-0.1", at=START, name="request.submitted", id="s", data={"envelope": {"v": 1, "sealed": "gAAA"}}
    )

    traffic = read_traffic([submitted_event("a", 0, executor_config=secret), submitted_event("b", 1), sealed])

    assert (len(traffic.requests), traffic.redacted_count, traffic.unreadable_count) == (2, 1, 1)
    assert traffic.requests[0].redacted_paths == ["executor_config.environment.TOKEN"]


def test_no_requests_are_no_traffic() -> None:
    traffic = read_traffic([])

    assert (traffic.requests, traffic.duration_seconds, traffic.queue_counts) == ([], 0.0, {})


@pytest.mark.parametrize(("speed", "times"), [(1.0, [0, 1, 3, 7]), (10.0, [0, 0.1, 0.3, 0.7]), (0.5, [0, 2, 6, 14])])
def test_the_rhythm_is_kept_at_any_speed(speed: float, times: list[float]) -> None:
    time = ReplayHarness()
    arrivals = [recorded_request(after) for after in (0.0, 1.0, 3.0, 7.0)]

    played = submit_traffic(arrivals, speed, time.submit, time.clock, time.sleep)

    assert time.submissions == [(at, [one.id]) for at, one in zip(times, arrivals, strict=True)]
    assert played.submitted_count == 4
    assert played.max_lag_seconds == pytest.approx(0.0, abs=1e-9)
    assert played.duration_seconds == pytest.approx(times[-1])


def test_what_came_at_the_same_time_goes_together_and_a_delay_is_caught_up_and_told() -> None:
    time = ReplayHarness(submit_seconds=2.0)
    arrivals = [recorded_request(after) for after in (0.0, 0.5, 1.0, 1.5, 10.0)]

    played = submit_traffic(arrivals, 1.0, time.submit, time.clock, time.sleep)

    assert [(at, len(ids)) for at, ids in time.submissions] == [(0, 1), (2, 3), (10, 1)]
    assert played.max_lag_seconds == pytest.approx(1.5)


def test_a_batch_is_bounded() -> None:
    time = ReplayHarness()
    submit_traffic([recorded_request(0.0)] * 1200, 1.0, time.submit, time.clock, time.sleep)

    assert [len(ids) for _, ids in time.submissions] == [500, 500, 200]


def test_what_submitting_raises_ends_it() -> None:
    def refuse(batch: Sequence[RecordedRequest]) -> None:
        raise ConnectionError

    time = ReplayHarness()
    with pytest.raises(ConnectionError):
        submit_traffic([recorded_request(0.0)], 1.0, refuse, time.clock, time.sleep)


@pytest.mark.parametrize("name", ["test", "load-test", "etl_staging", "dev2", "Demo", "ci-17", "local"])
def test_namespaces_for_tests_say_so(name: str) -> None:
    assert is_test_namespace(name)


@pytest.mark.parametrize("name", ["ecs-queue", "prod", "latest", "contest", "development-of-products", "devops"])
def test_any_other_may_be_production(name: str) -> None:
    assert not is_test_namespace(name)
