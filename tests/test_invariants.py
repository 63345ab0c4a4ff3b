"""find_violations, which the crash and chaos tests rely on, finds each violation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.invariants import find_violations

RECORD = Record(id="a", nonce="n", state=State.SUCCESS, launch=2, attempts=2, arn="arn-2")


def described_task(launch: int, started_at: float, stopped_at: float | None, **more: Any) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "taskArn": f"arn-{launch}",
        "startedBy": f"ns/a/n/{launch}",
        "lastStatus": "STOPPED" if stopped_at else "RUNNING",
        "createdAt": datetime.fromtimestamp(started_at, UTC),
    }
    if stopped_at:
        shown["stoppedAt"] = datetime.fromtimestamp(stopped_at, UTC)
    return {**shown, **more}


FIRST, SECOND = described_task(1, 10.0, 20.0), described_task(2, 30.0, 40.0)


def test_correct_records_and_tasks_have_no_violation() -> None:
    assert find_violations("ns", [RECORD], [FIRST, SECOND], 2) == []


@pytest.mark.parametrize(
    ("record", "tasks", "expected"),
    [
        ({"state": State.LAUNCHED}, [FIRST, SECOND], "a has not ended"),
        ({"attempts": 3}, [FIRST, SECOND], "a made 3 attempts of 2"),
        ({}, [FIRST, SECOND, described_task(2, 50.0, 60.0, taskArn="arn-3")], "launch 2 of a has 2 ECS tasks"),
        ({"launch": 1, "arn": "arn-1"}, [FIRST, SECOND], "launch 2 has a task"),
        ({}, [FIRST], "names arn-2, which ECS does not know"),
        ({}, [FIRST, described_task(2, 30.0, None)], "arn-2 is RUNNING"),
        ({}, [FIRST, described_task(2, 15.0, 40.0)], "two tasks of a were alive at once"),
        (
            {},
            [FIRST, SECOND, described_task(1, 1.0, 2.0, startedBy="ns/b/n/1")],
            "a task that no record knows: ns/b/n/1",
        ),
        ({}, [FIRST, SECOND, described_task(1, 1.0, 2.0, startedBy="ns/a/other/1")], "a task that no record knows"),
    ],
)
def test_a_violation_is_reported(record: dict[str, Any], tasks: list[dict[str, Any]], expected: str) -> None:
    found = find_violations("ns", [msgspec.structs.replace(RECORD, **record)], tasks, 2)
    assert any(expected in one for one in found), found
