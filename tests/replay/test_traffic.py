"""Recorded traffic: reading it from a journal, and the timing of its replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ecs_queue.journal import JournalEvent
from ecs_queue.journal.redact import redact
from ecs_queue.messages import envelope
from ecs_queue.messages.request import TaskRequest, new_request
from ecs_queue.replay.traffic import RecordedRequest, is_test_namespace, read_traffic, submit_traffic
from ecs_queue.runtask.resubmit import ResubmitChanges, build_resubmit_line
from tests.fake_clock import FakeClock

START = 1_800_000_000.0


def submitted_event(record_id: str, after: float, **fields: Any) -> JournalEvent:
    request = new_request(id=record_id, command=["run", record_id], now=START + after, accept_seconds=60, **fields)
    data = {"queue": "q", "envelope": redact(msgspec.json.decode(envelope.encode(request)))}
    return JournalEvent(v=1, seq="1-0.0", at=START + after, name="request.submitted", id=record_id, data=data)


def recorded_request(offset_seconds: float) -> RecordedRequest:
    return RecordedRequest(
        id=f"at-{offset_seconds}", offset_seconds=offset_seconds, task={"queue": "default"}, redacted_paths=[]
    )


class ReplayHarness:
    """A fake clock, and a `submit` that takes time."""

    def __init__(self, submit_seconds: float = 0.0) -> None:
        self.clock = FakeClock(100.0)
        self.submit_seconds = submit_seconds
        self.submissions: list[tuple[float, list[str]]] = []

    def submit(self, batch: Sequence[RecordedRequest]) -> None:
        self.submissions.append((round(self.clock.now - 100.0, 6), [request.id for request in batch]))
        self.clock.advance(self.submit_seconds)


def test_requests_are_read_in_order_with_all_members_that_the_caller_set() -> None:
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


def test_the_journal_hides_no_member_of_a_request_because_of_its_name() -> None:
    named = dict.fromkeys(TaskRequest.__struct_fields__, "customer-7")
    assert redact(named) == named


def test_a_repeated_request_has_what_the_caller_chose_of_the_first_one() -> None:
    chosen: dict[str, Any] = {
        "queue": "etl",
        "executor_config": {"cpu": 512},
        "priority": 9,
        "expires_in": 30.0,
        "time_limit": 9.0,
        "relaunch": "any_failure",
        "start_timeout": 5.0,
        "retry_rules": [{"on_exit_code": "137", "action": "retry"}],
        "labels": {"team": "data"},
        "concurrency_key": "customer-7",
    }
    not_repeated = {"v", "id", "submitted_at", "accept_until", "expires_at", "delay", "not_before", "submitted_by"}
    not_repeated |= {"owner", "origin", "traceparent"}
    assert {*chosen, "command"} == set(TaskRequest.__struct_fields__) - not_repeated

    (replayed,) = read_traffic([submitted_event("a", 0.0, **chosen)]).requests
    assert (replayed.task, replayed.redacted_paths) == ({**chosen, "command": ["run", "a"]}, [])
    request = new_request(id="a", command=["run", "a"], now=START, accept_seconds=60, **chosen)
    line = build_resubmit_line(request, "b", ResubmitChanges(), "main")
    assert line == {**chosen, "command": ["run", "a"], "id": "b"}


def test_redacted_and_unreadable_requests_are_counted() -> None:
    secret = {"environment": [{"name": "TOKEN", "value": "x"}]}
    encrypted = JournalEvent(
        v=1, seq="1-0.1", at=START, name="request.submitted", id="s", data={"envelope": {"v": 1, "sealed": "gAAA"}}
    )

    traffic = read_traffic([submitted_event("a", 0, executor_config=secret), submitted_event("b", 1), encrypted])

    assert (len(traffic.requests), traffic.redacted_count, traffic.unreadable_count) == (2, 1, 1)
    assert traffic.requests[0].redacted_paths == ["executor_config.environment.TOKEN"]


def test_no_requests_are_no_traffic() -> None:
    traffic = read_traffic([])

    assert (traffic.requests, traffic.duration_seconds, traffic.queue_counts) == ([], 0.0, {})


@pytest.mark.parametrize(("speed", "times"), [(1.0, [0, 1, 3, 7]), (10.0, [0, 0.1, 0.3, 0.7]), (0.5, [0, 2, 6, 14])])
def test_the_timing_is_kept_at_any_speed(speed: float, times: list[float]) -> None:
    harness = ReplayHarness()
    requests = [recorded_request(offset) for offset in (0.0, 1.0, 3.0, 7.0)]

    replay = submit_traffic(requests, speed, harness.submit, harness.clock, harness.clock.sleep)

    assert harness.submissions == [(at, [request.id]) for at, request in zip(times, requests, strict=True)]
    assert replay.submitted_count == 4
    assert replay.max_lag_seconds == pytest.approx(0.0, abs=1e-9)
    assert replay.duration_seconds == pytest.approx(times[-1])


def test_requests_due_together_are_submitted_together_and_the_lag_is_reported() -> None:
    harness = ReplayHarness(submit_seconds=2.0)
    requests = [recorded_request(offset) for offset in (0.0, 0.5, 1.0, 1.5, 10.0)]

    replay = submit_traffic(requests, 1.0, harness.submit, harness.clock, harness.clock.sleep)

    assert [(at, len(ids)) for at, ids in harness.submissions] == [(0, 1), (2, 3), (10, 1)]
    assert replay.max_lag_seconds == pytest.approx(1.5)


def test_a_batch_is_bounded() -> None:
    harness = ReplayHarness()
    submit_traffic([recorded_request(0.0)] * 1200, 1.0, harness.submit, harness.clock, harness.clock.sleep)

    assert [len(ids) for _, ids in harness.submissions] == [500, 500, 200]


def test_an_error_of_submit_ends_the_replay() -> None:
    def refuse(batch: Sequence[RecordedRequest]) -> None:
        raise ConnectionError

    harness = ReplayHarness()
    with pytest.raises(ConnectionError):
        submit_traffic([recorded_request(0.0)], 1.0, refuse, harness.clock, harness.clock.sleep)


@pytest.mark.parametrize("name", ["test", "load-test", "etl_staging", "dev2", "Demo", "ci-17", "local"])
def test_test_namespaces_are_recognized(name: str) -> None:
    assert is_test_namespace(name)


@pytest.mark.parametrize("name", ["ecs-queue", "prod", "latest", "contest", "development-of-products", "devops"])
def test_other_namespaces_may_be_production(name: str) -> None:
    assert not is_test_namespace(name)
