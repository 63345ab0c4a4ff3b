"""From profile and task to run_task's arguments."""

from __future__ import annotations

import copy
import datetime
import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_queue.config import Profile
from ecs_queue.errors import ConfigError, InvalidRequest
from ecs_queue.runtask.arguments import (
    check_overrides_length,
    render_run_task_kwargs,
    validate_request,
)
from ecs_queue.runtask.overrides import SAFE_OVERRIDES
from ecs_queue.tasks import EcsQueuedTask

NOW = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)


def profile(**changes: Any) -> Profile:
    keys: dict[str, Any] = {
        "queue": "gpu",
        "cluster": "prod",
        "task_definition": "worker:3",
        "container_name": "main",
        "subnets": ("subnet-1", "subnet-2"),
        "allowed_overrides": ("*",),
    }
    return Profile(**{**keys, **changes})


def queued(config: dict[str, Any] | None = None, *, command: Any = ("echo", "hi")) -> EcsQueuedTask:
    words = list(command) if isinstance(command, tuple) else command
    return EcsQueuedTask("id-1", words, "gpu", config or {}, 1, NOW)


def render(config: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return validate_request(profile(**changes), queued(config))


def main_override(kwargs: dict[str, Any]) -> dict[str, Any]:
    (found,) = [c for c in kwargs["overrides"]["containerOverrides"] if c["name"] == "main"]
    return dict(found)


def test_the_least_profile_gives_the_whole_arguments() -> None:
    assert render() == {
        "cluster": "prod",
        "taskDefinition": "worker:3",
        "count": 1,
        "launchType": "FARGATE",
        "platformVersion": "LATEST",
        "networkConfiguration": {
            "awsvpcConfiguration": {"subnets": ["subnet-1", "subnet-2"], "assignPublicIp": "DISABLED"}
        },
        "overrides": {"containerOverrides": [{"name": "main", "command": ["echo", "hi"]}]},
    }


def test_botocore_accepts_what_was_rendered() -> None:
    config = {
        "cpu": 512,
        "environment": [{"name": "A", "value": "1"}],
        "volume_configurations": [{"name": "v", "managed_ebs_volume": {"role_arn": "r", "size_in_gib": 1}}],
    }
    kwargs = render(config, security_groups=("sg-1",), assign_public_ip=True)
    shape = botocore.session.Session().get_service_model("ecs").operation_model("RunTask").input_shape
    assert not ParamValidator().validate(kwargs, shape).has_errors()
    network = kwargs["networkConfiguration"]["awsvpcConfiguration"]
    assert (network["securityGroups"], network["assignPublicIp"]) == (["sg-1"], "ENABLED")


def test_ec2_gets_no_platform_version_and_no_public_ip() -> None:
    kwargs = render(launch_type="EC2", platform_version="1.4.0", assign_public_ip=True)
    assert "platformVersion" not in kwargs
    assert "assignPublicIp" not in kwargs["networkConfiguration"]["awsvpcConfiguration"]


def test_ec2_without_any_network_key_sends_no_network_configuration() -> None:
    assert "networkConfiguration" not in render(launch_type="EC2", subnets=())


def test_security_groups_without_subnets_are_an_error_on_ec2_too() -> None:
    with pytest.raises(ConfigError, match="expected at least one subnet"):
        render(launch_type="EC2", subnets=(), security_groups=("sg",))


def test_fargate_without_subnets_is_an_error_that_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"queue 'gpu': expected at least one subnet.*aws_ecs_executor\.gpu"):
        render(subnets=())


@pytest.mark.parametrize("layer", ["run_task_kwargs", "executor_config"])
def test_subnets_may_come_from_another_layer(layer: str) -> None:
    network = {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-9"]}}}
    kwargs = render(subnets=(), run_task_kwargs=network) if layer == "run_task_kwargs" else render(network, subnets=())
    assert kwargs["networkConfiguration"]["awsvpcConfiguration"] == {
        "subnets": ["subnet-9"],
        "assignPublicIp": "DISABLED",
    }


def test_a_request_changes_single_keys_of_the_network() -> None:
    asked = {"network_configuration": {"awsvpc_configuration": {"security_groups": ["sg-9"]}}}
    network = render(asked)["networkConfiguration"]["awsvpcConfiguration"]
    assert (network["subnets"], network["securityGroups"]) == (["subnet-1", "subnet-2"], ["sg-9"])


def test_a_capacity_provider_strategy_takes_the_place_of_the_launch_type() -> None:
    kwargs = render(capacity_provider_strategy=({"capacity_provider": "FARGATE_SPOT", "weight": 1},))
    assert kwargs["capacityProviderStrategy"] == [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    assert "launchType" not in kwargs
    assert kwargs["platformVersion"] == "LATEST"


def test_a_capacity_provider_of_instances_gets_no_platform_version() -> None:
    kwargs = render(capacity_provider_strategy=({"capacityProvider": "my-asg"},), subnets=())
    assert not {"launchType", "platformVersion", "networkConfiguration"} & kwargs.keys()


def test_an_empty_strategy_leaves_the_choice_to_the_cluster() -> None:
    kwargs = render(capacity_provider_strategy=())
    assert not {"launchType", "capacityProviderStrategy", "platformVersion"} & kwargs.keys()


@pytest.mark.parametrize(
    ("provider", "is_fargate"), [("FARGATE", True), ("FARGATE_SPOT", True), ("my-instances", False)]
)
def test_the_default_strategy_of_a_cluster_takes_the_place_of_what_is_not_set(provider: str, is_fargate: bool) -> None:
    default = ({"capacityProvider": provider, "weight": 1},)
    kwargs = render(launch_type=None, assign_public_ip=True, cluster_strategy=default)
    assert "launchType" not in kwargs
    assert "capacityProviderStrategy" not in kwargs
    assert ("platformVersion" in kwargs) == is_fargate
    assert ("assignPublicIp" in kwargs["networkConfiguration"]["awsvpcConfiguration"]) == is_fargate
    assert render(launch_type="EC2", cluster_strategy=default)["launchType"] == "EC2"
    assert (
        render({"launchType": "EXTERNAL"}, launch_type=None, cluster_strategy=default, allowed_overrides=("*",))[
            "launchType"
        ]
        == "EXTERNAL"
    )
    assert render(launch_type=None)["launchType"] == "FARGATE"


def test_the_last_layer_that_chooses_the_capacity_wins() -> None:
    spot = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}
    assert "launchType" not in render(launch_type="EC2", run_task_kwargs=spot)
    kwargs = render({"launch_type": "EC2"}, run_task_kwargs=spot)
    assert kwargs["launchType"] == "EC2"
    assert "capacityProviderStrategy" not in kwargs


def test_both_choices_in_one_layer_are_refused() -> None:
    both = {"launchType": "EC2", "capacityProviderStrategy": [{"capacityProvider": "a"}]}
    with pytest.raises(InvalidRequest, match="capacity_provider_strategy or launch_type, found both"):
        render(both)
    with pytest.raises(ConfigError, match="found both"):
        render(run_task_kwargs=both)
    with pytest.raises(ConfigError, match="expected only one of them, found both"):
        profile(launch_type="EC2", capacity_provider_strategy=({"capacityProvider": "a"},))


@pytest.mark.parametrize(
    ("allowed", "cost"),
    [(SAFE_OVERRIDES, "42"), (("tags.cost", "tags"), "0"), (("*",), "0")],
    ids=["safe", "tags.cost", "everything"],
)
def test_a_requests_tags_are_added_and_the_profiles_stay_unless_they_may_be_replaced(
    allowed: tuple[str, ...], cost: str
) -> None:
    request = {"tags": [{"key": "cost", "value": "0"}, {"key": "run", "value": "7"}]}
    defaults = {"tags": [{"key": "cost", "value": "42"}]}
    kwargs = render(request, run_task_kwargs=defaults, allowed_overrides=allowed)
    assert kwargs["tags"] == [{"key": "cost", "value": cost}, {"key": "run", "value": "7"}]


def test_a_tag_of_a_name_that_is_not_allowed_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"tags\.run may not be overridden"):
        render({"tags": [{"key": "run", "value": "7"}]}, allowed_overrides=("tags.cost",))


def test_run_task_kwargs_are_below_the_request_and_merged_by_name() -> None:
    defaults = {
        "tags": [{"key": "team", "value": "data"}],
        "overrides": {
            "container_overrides": [
                {"memory": 5, "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                {"name": "side", "cpu": 1},
            ]
        },
    }
    kwargs = render({"environment": [{"name": "B", "value": "3"}]}, run_task_kwargs=defaults)
    assert kwargs["tags"] == defaults["tags"]
    assert kwargs["overrides"]["containerOverrides"][1] == {"name": "side", "cpu": 1}
    assert main_override(kwargs) == {
        "name": "main",
        "memory": 5,
        "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}],
        "command": ["echo", "hi"],
    }


def test_both_spellings_of_a_request_render_the_same() -> None:
    flat = {"cpu": 512, "environment": [{"name": "A", "value": "1"}]}
    whole = {"overrides": {"containerOverrides": [{"name": "main", **flat}]}}
    assert render(flat) == render(whole)


def test_a_sidecar_may_have_a_command_of_its_own() -> None:
    side = {"overrides": {"containerOverrides": [{"name": "side", "command": ["log"]}]}}
    by_name = {c["name"]: c["command"] for c in render(side)["overrides"]["containerOverrides"]}
    assert by_name == {"side": ["log"], "main": ["echo", "hi"]}


def test_a_request_may_choose_its_task_definition_but_not_its_cluster() -> None:
    assert render({"task_definition": "other:1"})["taskDefinition"] == "other:1"
    with pytest.raises(InvalidRequest, match=r"executor_config\.cluster"):
        render({"cluster": "other"})


@pytest.mark.parametrize("key", ["clientToken", "startedBy", "count", "cluster"])
def test_what_the_protocol_owns_is_refused_in_run_task_kwargs(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"run_task_kwargs\.{key}: expected no such key"):
        profile(run_task_kwargs={key: "x"})


@pytest.mark.parametrize("key", ["cluster", "task_definition", "container_name"])
def test_a_profile_that_lacks_a_key_names_queue_and_ways_to_set_it(key: str) -> None:
    incomplete = profile(**{key: None})
    for ask in (incomplete.require_launchable, lambda: render_run_task_kwargs(incomplete, queued())):
        with pytest.raises(ConfigError) as caught:
            ask()
        message = str(caught.value)
        assert f"queue 'gpu': expected {key} to be set" in message
        assert f"AIRFLOW__AWS_ECS_EXECUTOR__{key.upper()}" in message


def test_a_complete_profile_is_launchable() -> None:
    profile().require_launchable()
    with pytest.raises(ConfigError, match="subnet"):
        profile(subnets=()).require_launchable()


@pytest.mark.parametrize(
    ("command", "found"), [([], "an empty one"), ("echo", "str"), (["a", 1], "list"), (None, "NoneType")]
)
def test_a_command_that_is_no_list_of_words_is_refused(command: Any, found: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"command: expected a list of strings.*found {found}"):
        render_run_task_kwargs(profile(), queued(command=command))


def padded(length: int) -> dict[str, Any]:
    """Overrides of exactly this many characters of JSON."""
    frame = len(json.dumps({"a": ""}, separators=(",", ":")))
    return {"a": "x" * (length - frame)}


def test_8192_characters_of_overrides_pass_and_one_more_is_refused_with_the_number() -> None:
    check_overrides_length(padded(8192))
    with pytest.raises(InvalidRequest, match=r"expected at most 8192 characters .* found 8193"):
        check_overrides_length(padded(8193))


def test_characters_count_not_bytes() -> None:
    check_overrides_length({"a": "é" * 8184})
    with pytest.raises(InvalidRequest, match="found 8193"):
        check_overrides_length({"a": "é" * 8185})


def test_a_request_that_is_too_long_with_its_profile_is_refused() -> None:
    big = {"environment": [{"name": "BIG", "value": "x" * 8000}]}
    render(big)
    with pytest.raises(InvalidRequest, match="expected at most 8192"):
        render(big, run_task_kwargs={"environment": [{"name": "MORE", "value": "y" * 200}]})


def test_six_kilobytes_and_unicode_pass_unchanged() -> None:
    config = {"environment": [{"name": "ÜNI", "value": "☃" * 6000}]}
    assert main_override(render(config))["environment"] == config["environment"]


CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.integers(1, 9),
        "environment": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from("ABC"), "value": st.text(max_size=5)}), max_size=4
        ),
        "tags": st.just([{"key": "k", "value": "v"}]),
    },
)


@settings(deadline=None)
@given(CONFIGS, CONFIGS)
def test_rendering_is_pure_and_the_request_wins(defaults: dict[str, Any], asked: dict[str, Any]) -> None:
    from_file, task = profile(run_task_kwargs=defaults), queued(asked)
    before = copy.deepcopy((from_file, task))
    first = render_run_task_kwargs(from_file, task)
    assert first == render_run_task_kwargs(from_file, task)
    main = main_override(first)
    assert main["command"] == ["echo", "hi"]
    assert main.get("cpu") == asked.get("cpu", defaults.get("cpu"))
    values = {entry["name"]: entry["value"] for entry in main.get("environment", [])}
    for layer in (defaults, asked):
        wanted = {entry["name"]: entry["value"] for entry in layer.get("environment", [])}
        assert wanted.keys() <= values.keys()
    assert wanted.items() <= values.items()
    first["overrides"]["containerOverrides"].clear()
    assert (from_file, task) == before
