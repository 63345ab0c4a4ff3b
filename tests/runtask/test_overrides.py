"""What a request may override, and what only the operator decides."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.errors import ConfigError, InvalidRequest
from ecs_queue.runtask.botocore_model import container_override_shape, run_task_shape
from ecs_queue.runtask.executor_config import RESERVED_KEYS, normalize_executor_config
from ecs_queue.runtask.overrides import SAFE_OVERRIDES, check_overrides_allowed, parse_allowed_overrides

_ROLE = "arn:aws:iam::123456789012:role/admin"


def check(config: dict[str, Any], allowed: tuple[str, ...] = SAFE_OVERRIDES) -> None:
    check_overrides_allowed(normalize_executor_config(config, "main"), allowed, "default")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"cpu": 512, "memory": 1024, "memory_reservation": 512, "environment": [{"name": "A", "value": "b"}]},
        {"resourceRequirements": [{"type": "GPU", "value": "1"}]},
        {"tags": [{"key": "team", "value": "a"}]},
        {"overrides": {"cpu": "1024", "memory": "2048", "ephemeralStorage": {"sizeInGiB": 30}}},
        {"overrides": {"containerOverrides": [{"name": "proxy", "memory": 64, "command": ["serve"]}]}},
    ],
)
def test_overrides_of_resources_and_input_are_allowed_by_default(config: dict[str, Any]) -> None:
    check(config)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"overrides": {"taskRoleArn": _ROLE}}, "overrides.taskRoleArn"),
        ({"overrides": {"executionRoleArn": _ROLE}}, "overrides.executionRoleArn"),
        ({"overrides": {"task_role_arn": _ROLE}}, "overrides.taskRoleArn"),
        ({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"]}}}, "networkConfiguration"),
        ({"network_configuration": {"awsvpc_configuration": {"subnets": ["s"]}}}, "networkConfiguration"),
        ({"taskDefinition": "other"}, "taskDefinition"),
        ({"launchType": "EC2"}, "launchType"),
        ({"capacityProviderStrategy": [{"capacityProvider": "big"}]}, "capacityProviderStrategy"),
        ({"enableExecuteCommand": True}, "enableExecuteCommand"),
        ({"placementConstraints": [{"type": "distinctInstance"}]}, "placementConstraints"),
        ({"environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::secrets/all.env"}]}, "environmentFiles"),
        (
            {"overrides": {"containerOverrides": [{"name": "main"}, {"name": "x", "environmentFiles": []}]}},
            "environmentFiles",
        ),
    ],
)
def test_who_a_task_is_and_where_it_runs_is_not(config: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^executor_config: {named} may not .*'default'.*allowed_overrides"):
        check(config)


def test_every_argument_is_either_allowed_by_default_or_refused_by_name() -> None:
    """A member that a later botocore adds is refused until this package lists it."""
    others = (run_task_shape().members.keys() | container_override_shape().members.keys()) - set(SAFE_OVERRIDES)
    for name in others - RESERVED_KEYS.keys() - {"overrides", "name"}:
        with pytest.raises(InvalidRequest, match=name):
            check_overrides_allowed({name: "x"}, SAFE_OVERRIDES, "default")


def test_names_may_be_spelled_as_in_a_request() -> None:
    assert parse_allowed_overrides(["cpu", "task_definition", "overrides.task_role_arn", "CPU"]) == (
        "cpu",
        "taskDefinition",
        "overrides.taskRoleArn",
    )


def test_the_words_for_the_default_everything_and_nothing() -> None:
    assert parse_allowed_overrides(["safe"]) == SAFE_OVERRIDES
    assert parse_allowed_overrides(["safe", "taskDefinition"]) == (*SAFE_OVERRIDES, "taskDefinition")
    assert parse_allowed_overrides(["none"]) == ()
    check({"taskDefinition": "other"}, parse_allowed_overrides(["*"]))
    with pytest.raises(InvalidRequest, match="allowed are none"):
        check({"cpu": 1}, ())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("taskDefiniton", "taskDefinition"),
        ("overrides.taskRole", "overrides.taskRoleArn"),
        ("taskRoleArn", "overrides.taskRoleArn"),
        ("overrides", "overrides"),
        ("overrides.containerOverrides", "overrides"),
        ("cluster", "known are"),
        ("clientToken", "known are|did you mean"),
        ("tags.key", "known are|did you mean"),
    ],
)
def test_an_unknown_name_is_an_error_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        parse_allowed_overrides([name])


def test_nothing_beside_none() -> None:
    with pytest.raises(ConfigError, match="none"):
        parse_allowed_overrides(["none", "cpu"])
