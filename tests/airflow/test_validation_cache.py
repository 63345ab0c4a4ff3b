"""Validating many requests that differ only in their commands."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.airflow import validation_cache
from ecs_queue.config import load_config
from ecs_queue.errors import InvalidRequest
from ecs_queue.messages.request import TaskRequest, new_request
from ecs_queue.runtask.arguments import validate_request

SETTINGS = {
    "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "jobs",
    "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "airflow",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "main",
    "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-1",
}


def make_request(command: str = "x", **fields: Any) -> TaskRequest:
    return new_request(id="job", command=["echo", command], now=1.0, accept_seconds=60, **fields)


@pytest.fixture
def validated_requests(monkeypatch: pytest.MonkeyPatch) -> list[TaskRequest]:
    """The tasks that were validated in full."""
    tasks: list[Any] = []

    def validate(profile: Any, task: Any) -> dict[str, Any]:
        tasks.append(task)
        return validate_request(profile, task)

    monkeypatch.setattr(validation_cache, "validate_request", validate)
    return tasks


def make_cache() -> validation_cache.ValidationCache:
    return validation_cache.ValidationCache(load_config(environ=SETTINGS))


def test_equal_requests_are_validated_once(validated_requests: list[TaskRequest]) -> None:
    cache = make_cache()
    for number in range(100):
        cache.validate(make_request(f"number {number}"))
    assert len(validated_requests) == 1


def test_another_queue_or_executor_config_is_validated_by_itself(validated_requests: list[TaskRequest]) -> None:
    cache = make_cache()
    cache.validate(make_request())
    cache.validate(make_request(queue="gpu"))
    cache.validate(make_request(executor_config={"cpu": 256}))
    assert len(validated_requests) == 3


def test_a_command_that_is_too_long_is_rejected_also_after_short_ones() -> None:
    cache = make_cache()
    cache.validate(make_request())
    with pytest.raises(InvalidRequest, match="8192"):
        cache.validate(make_request("x" * 8192))


@pytest.mark.parametrize("letter", ["x", "ä", "\N{PILE OF POO}", '"'])
def test_the_limit_is_that_of_the_full_validation(letter: str) -> None:
    cache = make_cache()
    cache.validate(make_request())
    longest = 0
    for length in range(1900, 8192, 97):
        text = letter * length
        try:
            make_cache().validate(make_request(text))
        except InvalidRequest:
            with pytest.raises(InvalidRequest):
                cache.validate(make_request(text))
        else:
            cache.validate(make_request(text))
            longest = length
    assert longest > 0


def test_an_invalid_request_is_rejected_every_time() -> None:
    cache = make_cache()
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            cache.validate(make_request(executor_config={"nonsense": 1}))
