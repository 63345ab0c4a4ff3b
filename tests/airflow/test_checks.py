"""Checking thousands of requests that differ in their command only."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.airflow import checks
from ecs_queue.config import load_config
from ecs_queue.core.envelope import TaskRequest, new_request
from ecs_queue.core.run_task_kwargs import validate_request
from ecs_queue.errors import InvalidRequest

SETTINGS = {
    "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "jobs",
    "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "airflow",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "main",
    "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-1",
}


def request(command: str = "x", **fields: Any) -> TaskRequest:
    return new_request(id="job", command=["echo", command], now=1.0, accept_seconds=60, **fields)


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> list[TaskRequest]:
    """What was validated in full."""
    seen: list[Any] = []

    def validate(profile: Any, task: Any) -> dict[str, Any]:
        seen.append(task)
        return validate_request(profile, task)

    monkeypatch.setattr(checks, "validate_request", validate)
    return seen


def checked() -> checks.CheckedRequests:
    return checks.CheckedRequests(load_config(environ=SETTINGS))


def test_what_is_alike_is_validated_once(validated: list[TaskRequest]) -> None:
    check = checked()
    for number in range(100):
        check.check(request(f"number {number}"))
    assert len(validated) == 1


def test_another_queue_or_executor_config_is_validated_by_itself(validated: list[TaskRequest]) -> None:
    check = checked()
    check.check(request())
    check.check(request(queue="gpu"))
    check.check(request(executor_config={"cpu": 256}))
    assert len(validated) == 3


def test_a_command_that_is_too_long_is_refused_also_after_short_ones() -> None:
    check = checked()
    check.check(request())
    with pytest.raises(InvalidRequest, match="8192"):
        check.check(request("x" * 8192))


@pytest.mark.parametrize("letter", ["x", "ä", "\N{PILE OF POO}", '"'])
def test_the_limit_is_that_of_the_full_validation(letter: str) -> None:
    check = checked()
    check.check(request())
    longest = 0
    for length in range(1900, 8192, 97):
        text = letter * length
        try:
            checked().check(request(text))
        except InvalidRequest:
            with pytest.raises(InvalidRequest):
                check.check(request(text))
        else:
            check.check(request(text))
            longest = length
    assert longest > 0


def test_a_wrong_one_is_refused_every_time() -> None:
    check = checked()
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            check.check(request(executor_config={"nonsense": 1}))
