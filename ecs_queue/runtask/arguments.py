"""The arguments of boto3's run_task, from a profile and a queued task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ecs_queue.errors import ConfigError, InvalidRequest
from ecs_queue.runtask.botocore_model import run_task_shape, validate
from ecs_queue.runtask.capacity import choose_capacity, effective_capacity, is_fargate
from ecs_queue.runtask.casing import parse_assign_public_ip
from ecs_queue.runtask.executor_config import normalize_executor_config
from ecs_queue.runtask.label_tags import add_label_tags
from ecs_queue.runtask.merge import merge_run_task
from ecs_queue.runtask.overrides import check_overrides_allowed, keep_profile_tags
from ecs_queue.runtask.profile import RunTaskProfile
from ecs_queue.tasks import EcsQueuedTask

#: ECS: "Container Overrides length must be at most 8192", in characters of JSON, its punctuation included.
MAX_OVERRIDES_CHARACTERS = 8192


def render_run_task_kwargs(
    profile: RunTaskProfile, task: EcsQueuedTask, labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the arguments of boto3's run_task for one task, without clientToken and startedBy.

    Each layer overrides the one before: the profile's keys, its run_task_kwargs, the task's executor_config, and at
    last the command of the main container. Of the request's `labels` those become tags that the profile names. The same
    input gives the same result, which shares nothing with the input.

    Raises:
        InvalidRequest: The executor_config or the command is wrong, or overrides what the queue does not allow.
        ConfigError: The profile is incomplete or contradicts itself; the message says what to set.
    """
    main = _require_main_container(profile)
    _check_command(task.command)
    requested = normalize_executor_config(task.executor_config, main)
    check_overrides_allowed(requested, profile.allowed_overrides, profile.queue, main)
    defaults = _name_main_container(profile.run_task_kwargs, main)
    capacity = choose_capacity(profile, defaults, requested)
    layers = merge_run_task(defaults, keep_profile_tags(requested, defaults, profile.allowed_overrides))
    for key in ("launchType", "capacityProviderStrategy"):
        layers.pop(key, None)
    base = {"cluster": profile.cluster, "taskDefinition": profile.task_definition, "count": 1, **capacity}
    if profile.platform_version:
        base["platformVersion"] = profile.platform_version
    command = {"overrides": {"containerOverrides": [{"name": main, "command": list(task.command)}]}}
    kwargs = merge_run_task(merge_run_task(base, layers), command)
    if not is_fargate(effective_capacity(profile, capacity)):
        kwargs.pop("platformVersion", None)
    _add_network_configuration(kwargs, profile, capacity)
    add_label_tags(kwargs, profile.tag_labels, labels or {})
    return kwargs


def validate_request(
    profile: RunTaskProfile, task: EcsQueuedTask, labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the rendered arguments after every check that needs no call to AWS.

    AWS can refuse these arguments only for what it alone knows (names, permissions, capacity).

    Raises:
        InvalidRequest, ConfigError: As from `render_run_task_kwargs` and `check_overrides_length`.
    """
    kwargs = render_run_task_kwargs(profile, task, labels)
    validate(kwargs, run_task_shape(), "run_task")
    check_overrides_length(kwargs.get("overrides", {}))
    return kwargs


def check_overrides_length(overrides: Mapping[str, Any]) -> None:
    """Raise InvalidRequest if `overrides` is longer than ECS accepts: 8192 characters of JSON.

    The shortest JSON is counted, without escapes. A character outside the Basic Multilingual Plane counts as two, as
    in AWS's own strings.
    """
    text = json.dumps(overrides, separators=(",", ":"), ensure_ascii=False)
    length = len(text.encode("utf-16-le", "surrogatepass")) // 2
    if length > MAX_OVERRIDES_CHARACTERS:
        raise InvalidRequest(
            f"overrides: expected at most {MAX_OVERRIDES_CHARACTERS} characters of JSON (with command and "
            f"environment), found {length}; pass large input by reference, such as S3"
        )


def check_launchable(profile: RunTaskProfile) -> None:
    """Raise ConfigError, naming the queue and what to set, if no task can be launched with this profile alone."""
    main = _require_main_container(profile)
    defaults = _name_main_container(profile.run_task_kwargs, main)
    _add_network_configuration(dict(defaults), profile, choose_capacity(profile, defaults, {}))


def _require_main_container(profile: RunTaskProfile) -> str:
    task_definition = profile.task_definition or profile.run_task_kwargs.get("taskDefinition")
    required = {
        "cluster": profile.cluster,
        "container_name": profile.container_name,
        "task_definition": task_definition,
    }
    missing = next((key for key, value in required.items() if not value), None)
    if missing:
        section = "aws_ecs_executor"
        raise ConfigError(
            f"expected {missing} to be set, found nothing; set {missing} in [{section}] or "
            f"[{section}.{profile.queue}], or AIRFLOW__{section.upper()}__{missing.upper()} in the environment",
            profile.queue,
        )
    return str(profile.container_name)


def _check_command(command: object) -> None:
    is_list = isinstance(command, list | tuple) and len(command) > 0
    if not is_list or not all(isinstance(item, str) for item in command):  # type: ignore[attr-defined]
        raise InvalidRequest(
            'command: expected a list of strings, such as ["echo", "hello"], found '
            + ("an empty one" if command in ([], ()) else type(command).__name__)
        )


def _name_main_container(run_task_kwargs: Mapping[str, Any], main_container: str) -> Mapping[str, Any]:
    """The profile's run_task_kwargs; a container override without a name gets the main container's."""
    containers = run_task_kwargs.get("overrides", {}).get("containerOverrides", ())
    if all("name" in container for container in containers):
        return run_task_kwargs
    named = [{"name": main_container, **container} for container in containers]
    overrides = {**run_task_kwargs["overrides"], "containerOverrides": named}
    return {**run_task_kwargs, "overrides": overrides}


def _add_network_configuration(kwargs: dict[str, Any], profile: RunTaskProfile, capacity: Mapping[str, Any]) -> None:
    """Add the profile's network configuration; run_task_kwargs and the request override it."""
    on_fargate = is_fargate(effective_capacity(profile, capacity))
    requested = kwargs.get("networkConfiguration", {}).get("awsvpcConfiguration", {})
    network: dict[str, Any] = {}
    if profile.subnets:
        network["subnets"] = list(profile.subnets)
    if profile.security_groups:
        network["securityGroups"] = list(profile.security_groups)
    if not (on_fargate or network or requested):  # assign_public_ip alone is sent for Fargate only
        return
    network.update(requested)
    if not network.get("subnets"):
        raise ConfigError(
            "expected at least one subnet to run a task, found none; set subnets "
            f"in [aws_ecs_executor] or [aws_ecs_executor.{profile.queue}], "
            "or networkConfiguration in run_task_kwargs",
            profile.queue,
        )
    public_ip = parse_assign_public_ip(profile.assign_public_ip, is_launch_type_ec2=not on_fargate)
    if public_ip is not None:
        network.setdefault("assignPublicIp", public_ip)
    kwargs["networkConfiguration"] = {"awsvpcConfiguration": network}
