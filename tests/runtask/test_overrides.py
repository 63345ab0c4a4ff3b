"""What a request may override, and what only the operator decides."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inflection import underscore

from ecs_queue.config import Profile
from ecs_queue.errors import ConfigError, InvalidRequest
from ecs_queue.runtask.arguments import validate_request
from ecs_queue.runtask.botocore_model import container_override_shape, run_task_shape
from ecs_queue.runtask.executor_config import RESERVED_KEYS, normalize_executor_config
from ecs_queue.runtask.launch_spec import build_launch_spec
from ecs_queue.runtask.overrides import SAFE_OVERRIDES, check_overrides_allowed, parse_allowed_overrides
from ecs_queue.tasks import EcsQueuedTask

#: What an operator may set, and the key of the container "proxy" that it opens.
_OPENED = {(): None, ("safe",): None, ("safe", "containers.proxy.memory"): "memory", ("containers.proxy.Cpu",): "cpu"}
_VALUES = {
    "command": ["sh"],
    "environment": [{"name": "A", "value": "b"}],
    "cpu": 7,
    "memory": 7,
    "environmentFiles": [],
}
_ROLE = "arn:aws:iam::123456789012:role/admin"


def check(config: dict[str, Any], allowed: tuple[str, ...] = SAFE_OVERRIDES) -> None:
    check_overrides_allowed(normalize_executor_config(config, "main"), allowed, "default", "main")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"cpu": 512, "memory": 1024, "memory_reservation": 512, "environment": [{"name": "A", "value": "b"}]},
        {"resourceRequirements": [{"type": "GPU", "value": "1"}]},
        {"tags": [{"key": "team", "value": "a"}]},
        {"overrides": {"cpu": "1024", "memory": "2048", "ephemeralStorage": {"sizeInGiB": 30}}},
        {"overrides": {"containerOverrides": [{"memory": 64}, {"name": "proxy"}]}},
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
            "containers.x.environmentFiles",
        ),
        ({"overrides": {"container_overrides": [{"Name": "proxy", "command": ["sh"]}]}}, "containers.proxy.command"),
        ({"overrides": {"containerOverrides": [{"name": "Main", "cpu": 1}]}}, "containers.Main.cpu"),
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
            check_overrides_allowed({name: "x"}, SAFE_OVERRIDES, "default", "main")


def test_names_may_be_spelled_as_in_a_request() -> None:
    assert parse_allowed_overrides(["cpu", "task_definition", "overrides.task_role_arn", "CPU"]) == (
        "cpu",
        "taskDefinition",
        "overrides.taskRoleArn",
    )
    assert parse_allowed_overrides(["containers.Proxy.memory_reservation", "Containers.x.CPU"]) == (
        "containers.Proxy.memoryReservation",
        "containers.x.cpu",
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
        ("tags.", "known are|did you mean"),
        ("containers.proxy.memry", "containers.proxy.memory"),
        ("containers.proxy.name", "containers.proxy"),
        ("containers.proxy", "containers.proxy"),
        ("containers..cpu", "containers.NAME.cpu"),
        ("containers.a.b.cpu", "containers.a"),
        ("containers", "known are|did you mean"),
    ],
)
def test_an_unknown_name_is_an_error_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        parse_allowed_overrides([name])


def test_nothing_beside_none() -> None:
    with pytest.raises(ConfigError, match="none"):
        parse_allowed_overrides(["none", "cpu"])


def spellings(name: str) -> st.SearchStrategy[str]:
    """A key as a request may spell it: ours, snake_case, any casing."""
    return st.sampled_from([name, underscore(name), name.upper(), name.capitalize(), underscore(name).title()])


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """An executor_config with overrides of some containers, the main one named or not, in any spelling."""
    containers = []
    for name in draw(
        st.lists(st.sampled_from(["main", None, "proxy", "Proxy", "MAIN", " main", "", "x.cpu"]), unique=True)
    ):
        keys = draw(st.lists(st.sampled_from(sorted(_VALUES)), unique=True))
        override = {
            draw(spellings(key)): _VALUES[key] for key in keys if key != "command" or name not in ("main", None)
        }
        containers.append(override if name is None else {**override, draw(spellings("name")): name})
    return {draw(spellings("overrides")): {draw(spellings("containerOverrides")): containers}}


@settings(deadline=None)
@given(requests(), st.sampled_from(sorted(_OPENED)))
def test_no_spelling_of_a_request_changes_a_container_that_the_operator_has_not_opened(
    config: dict[str, Any], allowed: tuple[str, ...]
) -> None:
    """The check before a request is queued and the worker's, which renders what RunTask gets, agree."""
    own = {"overrides": {"containerOverrides": [{"name": "proxy", "cpu": 1, "memory": 2}]}}
    profile = Profile(
        queue="q",
        cluster="c",
        task_definition="t",
        container_name="main",
        subnets=("s",),
        run_task_kwargs=own,
        allowed_overrides=parse_allowed_overrides(allowed),
    )
    task = EcsQueuedTask("id", ["true"], "q", config, 1, datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC))
    try:
        arguments = validate_request(profile, task)
    except InvalidRequest:
        with pytest.raises(InvalidRequest):
            build_launch_spec(profile, 3, task)
        return
    assert build_launch_spec(profile, 3, task).run_task == arguments
    others = {c["name"]: c for c in arguments["overrides"]["containerOverrides"] if c["name"] != "main"}
    changed = {(n, k) for n, c in others.items() for k in c.keys() - {"name"} if n != "proxy" or c[k] == _VALUES[k]}
    assert changed <= {("proxy", _OPENED[allowed])}
