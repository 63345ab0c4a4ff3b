"""The judge of the crash and chaos tests sees each violation: one that sees nothing would prove nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from tests.evidence import violations

RECORD = Record(id="a", nonce="n", state=State.SUCCESS, launch=2, attempts=2, arn="arn-2")


def task(launch: int, begun: float, ended: float | None, **more: Any) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "taskArn": f"arn-{launch}",
        "startedBy": f"ns/a/n/{launch}",
        "lastStatus": "STOPPED" if ended else "RUNNING",
        "createdAt": datetime.fromtimestamp(begun, UTC),
    }
    if ended:
        shown["stoppedAt"] = datetime.fromtimestamp(ended, UTC)
    return {**shown, **more}


FIRST, SECOND = task(1, 10.0, 20.0), task(2, 30.0, 40.0)


def test_all_is_well() -> None:
    assert violations("ns", [RECORD], [FIRST, SECOND], 2) == []


@pytest.mark.parametrize(
    ("record", "tasks", "told"),
    [
        ({"state": State.LAUNCHED}, [FIRST, SECOND], "a has not ended"),
        ({"attempts": 3}, [FIRST, SECOND], "a made 3 attempts of 2"),
        ({}, [FIRST, SECOND, task(2, 50.0, 60.0, taskArn="arn-3")], "launch 2 of a has 2 ECS tasks"),
        ({"launch": 1, "arn": "arn-1"}, [FIRST, SECOND], "launch 2 has a task"),
        ({}, [FIRST], "names arn-2, which ECS does not know"),
        ({}, [FIRST, task(2, 30.0, None)], "arn-2 is RUNNING"),
        ({}, [FIRST, task(2, 15.0, 40.0)], "two tasks of a were alive at once"),
        ({}, [FIRST, SECOND, task(1, 1.0, 2.0, startedBy="ns/b/n/1")], "a task that no record knows: ns/b/n/1"),
        ({}, [FIRST, SECOND, task(1, 1.0, 2.0, startedBy="ns/a/other/1")], "a task that no record knows"),
    ],
)
def test_a_violation_is_told(record: dict[str, Any], tasks: list[dict[str, Any]], told: str) -> None:
    found = violations("ns", [msgspec.structs.replace(RECORD, **record)], tasks, 2)
    assert any(told in one for one in found), found
