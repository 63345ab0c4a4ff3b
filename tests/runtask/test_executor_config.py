"""Executor configurations in both spellings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_queue.errors import InvalidRequest
from ecs_queue.runtask.executor_config import (
    find_choices,
    normalize_executor_config,
    normalize_run_task_kwargs,
)


def containers(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"overrides": {"containerOverrides": list(entries)}}


@pytest.mark.parametrize("empty", [None, {}])
def test_none_and_empty_say_nothing(empty: dict[str, Any] | None) -> None:
    assert normalize_executor_config(empty, "main") == {}


def test_flat_keys_are_for_the_main_container() -> None:
    environment = [{"name": "MY_VAR", "value": "some_value"}]
    assert normalize_executor_config({"cpu": 512, "environment": environment}, "main") == containers(
        {"name": "main", "cpu": 512, "environment": environment}
    )


def test_flat_keys_may_stand_beside_arguments_of_run_task() -> None:
    config = normalize_executor_config({"memory_reservation": 5, "enable_execute_command": True}, "main")
    assert config == {"enableExecuteCommand": True, **containers({"name": "main", "memoryReservation": 5})}


def test_run_tasks_own_form_is_kept_and_its_keys_are_camelized() -> None:
    config = {"overrides": {"container_overrides": [{"name": "side_car", "command": ["snake_word", "x"]}]}}
    assert normalize_executor_config(config, "main") == containers({"name": "side_car", "command": ["snake_word", "x"]})


def test_an_override_without_a_name_is_the_main_containers() -> None:
    assert normalize_executor_config(containers({"cpu": 1}), "main") == containers({"name": "main", "cpu": 1})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "x"}, r"executor_config\.name: expected no such key, found 'name': the flat keys"),
        ({"command": ["x"]}, r"executor_config\.command: .*the command is the request's own"),
        (
            containers({"name": "main", "command": ["x"]}),
            r"Overrides\[0\]\.command: expected no command for the",
        ),
        (
            containers({"command": ["x"]}),
            r"Overrides\[0\]\.command: expected no command for the main container",
        ),
        (containers({"name": "a"}, {"name": "a"}), r"Overrides\[1\]: expected one entry a container.*'a'"),
        (containers({}, {"name": "main"}), r"Overrides\[1\]: .*second one for the main container"),
        (
            {"cpu": 1, "overrides": {}},
            r"expected either flat keys .* or overrides, found cpu beside overrides",
        ),
        ({"memroy": 1}, r"executor_config: unknown key 'memroy', .*; did you mean 'memory'\?"),
        (
            {"client_token": "x"},
            r"executor_config\.clientToken: expected no such key, found 'client_token': ecs-q",
        ),
        ({"startedBy": "x"}, r"executor_config\.startedBy: expected no such key"),
        ({"count": 2}, r"executor_config\.count: .*one request is one task"),
        ({"cluster": "x"}, r"executor_config\.cluster: .*submit to the queue"),
        ({"cpu": "many"}, r"executor_config\.cpu: expected a whole number, found 'many'"),
        (
            {"overrides": {"cpu": 512}},
            r"executor_config\.overrides\.cpu: expected text, found 512 \(a number\)",
        ),
        ({"launchType": "X", "launch_type": "EC2"}, r"executor_config\.launchType: expected one of EC2"),
        ({"launchType": "EC2", "launch_type": "EC2"}, r"launchType: expected once, found in two spellings"),
        (["cpu"], r"executor_config: expected an object, found list"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_queued(config: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        normalize_executor_config(config, "main")


def test_without_the_main_containers_name_an_unnamed_command_is_still_refused() -> None:
    with pytest.raises(InvalidRequest, match="expected no command"):
        normalize_executor_config(containers({"command": ["x"]}))
    normalize_executor_config(containers({"name": "side", "command": ["x"]}))


def test_tags_stay_as_they_are() -> None:
    tags = [{"key": "my_key", "value": "my_value"}]
    assert normalize_executor_config({"tags": tags}, "main") == {"tags": tags}


@pytest.mark.parametrize(
    ("config", "chosen"),
    [
        ({"tags": [{"key": "k", "value": "v"}]}, ("tags",)),
        ({"propagateTags": "TASK_DEFINITION"}, ("tags",)),
        ({"enableECSManagedTags": True, "overrides": {"taskRoleArn": "r"}}, ("tags", "r")),
        ({"enableECSManagedTags": False, "tags": []}, ()),
        ({"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}, ("capacity",)),
    ],
)
def test_tags_roles_and_capacity_are_the_requests_choice(config: dict[str, Any], chosen: tuple[str]) -> None:
    assert find_choices(config) == chosen


def test_nothing_is_shared_with_what_was_given() -> None:
    environment = [{"name": "A", "value": "1"}]
    conformed = normalize_executor_config({"environment": environment}, "main")
    conformed["overrides"]["containerOverrides"][0]["environment"][0]["value"] = "2"
    assert environment == [{"name": "A", "value": "1"}]


def test_the_message_about_run_task_kwargs_names_them() -> None:
    with pytest.raises(InvalidRequest, match=r"^run_task_kwargs\.count: expected no such key"):
        normalize_run_task_kwargs({"count": 3}, "main")


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["cpu", "memory", "memory_reservation", "environment", "tags", "launch_type"]),
        st.integers(1, 9) | st.just([]) | st.just("EC2"),
    )
)
def test_conforming_again_changes_nothing(config: dict[str, Any]) -> None:
    try:
        once = normalize_executor_config(config, "main")
    except InvalidRequest:
        return
    assert normalize_executor_config(once, "main") == once
