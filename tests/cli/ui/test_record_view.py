"""What may be seen of a record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ecs_queue.cli.ui.record_view import exit_status_for, format_run_time, record_lines, record_to_dict
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

NOW = 1_700_000_100.0


def record(**changes: Any) -> Record:
    facts: dict[str, Any] = {
        "id": "a1",
        "queue": "etl",
        "request": b'{"command": ["login", "--password", "hunter2"]}',
        "args": '{"run_task": {"overrides": {"environment": "hunter2"}}}',
        "state": State.SUCCESS,
        "arn": "arn:aws:ecs:eu-west-1:123456789012:task/prod/abc",
        "attempts": 2,
        "attempt": 2,
        "launch": 3,
        "exit_code": 0,
        "created_at": NOW - 90,
        "launched_at": NOW - 88.5,
        "started_at": NOW - 60,
        "finished_at": NOW - 10,
    }
    return Record(**{**facts, **changes})


def test_the_payload_is_in_no_view_of_a_record() -> None:
    seen = record()
    assert "hunter2" not in json.dumps(record_to_dict(seen))
    assert "hunter2" not in str(record_lines(seen, NOW))


def test_durations_are_the_wait_for_the_launch_and_the_run() -> None:
    facts = record_to_dict(record())
    assert (facts["waited_seconds"], facts["ran_seconds"]) == (1.5, 50.0)
    assert facts["queued_at"] == "2023-11-14T22:13:30Z"
    lines = dict(record_lines(record(), NOW))
    assert lines["launched"] == "2023-11-14T22:13:31Z, 1.50 s after it was queued"
    assert lines["finished"] == "2023-11-14T22:14:50Z, 50.0 s after its start"
    assert lines["queued"] == "2023-11-14T22:13:30Z, 1 min 30 s ago"


def test_the_runner_of_a_warm_pool_is_a_fact_for_machines_too() -> None:
    assert record_to_dict(record(run="a1.n.1"))["runner"] == "a1.n.1"
    assert record_to_dict(record())["runner"] is None


def test_what_has_not_happened_is_none_for_machines_and_left_out_for_people() -> None:
    seen = Record(id="a1", queue="etl", created_at=NOW - 5, expires_at=NOW + 60, not_before=NOW + 2.5)
    facts = record_to_dict(seen)
    assert facts["state"] == "QUEUED"
    assert facts["attempts"] == 0
    assert record_to_dict(record(state=State.LAUNCHED, finished_at=0.0))["attempts"] == 2
    unknown = ("task_arn", "exit_code", "launched_at", "finished_at", "ran_seconds", "stop_requested_by")
    assert [facts[name] for name in unknown] == [None] * 6
    lines = dict(record_lines(seen, NOW))
    assert (lines["task"], lines["launched"], lines["exit code"], lines["stop"]) == ("", "", "", "")
    assert lines["next attempt"] == "2023-11-14T22:15:02Z, in 2.50 s"
    assert lines["expires"] == "2023-11-14T22:16:00Z, in 1 min"


def test_a_stop_names_who_requested_it() -> None:
    seen = record(state=State.LAUNCHED, finished_at=0.0, stop_requested_by="ops", stop_requested_at=NOW - 1)
    assert dict(record_lines(seen, NOW))["stop"] == "requested by ops at 2023-11-14T22:14:59Z"


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"state": State.QUEUED}, "its queue is paused for 1 min 30 s: `ecs-queue queues resume etl`"),
        ({"state": State.LAUNCHED}, ""),
    ],
)
def test_a_request_that_waits_in_a_paused_queue_says_so(changes: dict[str, Any], shown: str) -> None:
    assert dict(record_lines(record(**changes, finished_at=0.0), NOW, {"etl": NOW - 90}))["paused"] == shown


def test_run_time_goes_on_while_it_runs() -> None:
    assert format_run_time(record(), NOW) == "50.0 s"
    assert format_run_time(record(finished_at=0.0), NOW) == "1 min"
    assert format_run_time(record(started_at=0.0), NOW) == ""


@pytest.mark.parametrize(
    ("state", "exit_code", "status"),
    [
        ("SUCCESS", 0, 0),
        ("FAILED", 3, 3),
        ("FAILED", 255, 255),
        ("FAILED", 256, 1),  # would be taken for 0
        ("FAILED", None, 1),
        ("REMOVED", None, 1),
        ("REVOKED", 143, 143),
        ("REVOKED", 0, 1),
        ("UNKNOWN", None, 1),
    ],
)
def test_the_exit_status_repeats_the_tasks_own(state: str, exit_code: int | None, status: int) -> None:
    assert exit_status_for({"state": state, "exit_code": exit_code}) == status
