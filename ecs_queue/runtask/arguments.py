"""From a profile and a queued task to the arguments of boto3's run_task."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from ecs_queue.errors import ConfigError, InvalidRequest
from ecs_queue.runtask.botocore_model import run_task_shape, validate
from ecs_queue.runtask.casing import parse_assign_public_ip
from ecs_queue.runtask.executor_config import normalize_executor_config
from ecs_queue.runtask.executor_config import validate_executor_config as validate_executor_config
from ecs_queue.runtask.merge import merge_run_task
from ecs_queue.runtask.overrides import check_overrides_allowed
from ecs_queue.tasks import EcsQueuedTask

#: ECS: "Container Overrides length must be at most 8192", in characters of JSON, its punctuation included.
MAX_OVERRIDES_CHARACTERS = 8192
#: The capacity providers that are Fargate; any other one is made of instances.
_FARGATE_PROVIDERS = frozenset({"FARGATE", "FARGATE_SPOT"})


class RunTaskProfile(Protocol):
    """What a profile must say to be launched with; `ecs_queue.config.Profile` is one.

    `run_task_kwargs` is in run_task's own spelling. `capacity_provider_strategy`: None = not set, empty = the
    cluster's own default strategy.
    """

    @property
    def queue(self) -> str: ...
    @property
    def cluster(self) -> str | None: ...
    @property
    def task_definition(self) -> str | None: ...
    @property
    def container_name(self) -> str | None: ...
    @property
    def launch_type(self) -> str | None: ...
    @property
    def capacity_provider_strategy(self) -> Sequence[Mapping[str, Any]] | None: ...
    @property
    def platform_version(self) -> str | None: ...
    @property
    def subnets(self) -> Sequence[str]: ...
    @property
    def security_groups(self) -> Sequence[str]: ...
    @property
    def assign_public_ip(self) -> bool: ...
    @property
    def run_task_kwargs(self) -> Mapping[str, Any]: ...
    @property
    def allowed_overrides(self) -> Collection[str]: ...


def render_run_task_kwargs(profile: RunTaskProfile, task: EcsQueuedTask) -> dict[str, Any]:
    """The arguments of boto3's run_task for one task, all but clientToken and startedBy.

    The layers: the profile's keys < its run_task_kwargs < the task's executor_config; then the command is
    set on the main container. The same input gives the same answer, and nothing in it is shared with the
    input. InvalidRequest: the executor_config or the command is wrong, or it overrides what it may not.
    ConfigError: the profile is; it says what to set.
    """
    main = _require_main_container(profile)
    _check_command(task.command)
    asked = normalize_executor_config(task.executor_config, main)
    check_overrides_allowed(asked, profile.allowed_overrides, profile.queue)
    defaults = _name_main_container(profile.run_task_kwargs, main)
    where = _choose_capacity(profile, defaults, asked)
    extra = _without_capacity(merge_run_task(defaults, asked))
    command = {"overrides": {"containerOverrides": [{"name": main, "command": list(task.command)}]}}
    base = {"cluster": profile.cluster, "taskDefinition": profile.task_definition, "count": 1, **where}
    if profile.platform_version:
        base["platformVersion"] = profile.platform_version
    kwargs = merge_run_task(merge_run_task(base, extra), command)
    if not _is_fargate(where):
        kwargs.pop("platformVersion", None)
    _add_network_configuration(kwargs, profile, where)
    return kwargs


def validate_request(profile: RunTaskProfile, task: EcsQueuedTask) -> dict[str, Any]:
    """Render, then check everything that can be checked without asking AWS; returns what was rendered.

    What passes here can be refused by AWS only for what it alone knows (names, rights, capacity).
    Errors as in render_run_task_kwargs and check_overrides_length.
    """
    kwargs = render_run_task_kwargs(profile, task)
    validate(kwargs, run_task_shape(), "run_task")
    check_overrides_length(kwargs.get("overrides", {}))
    return kwargs


def check_overrides_length(overrides: Mapping[str, Any]) -> None:
    """InvalidRequest with the number when `overrides` is longer than ECS takes: 8192 characters of JSON.

    Counted as the shortest JSON with characters as they are; one outside the Basic Multilingual Plane
    counts as two, as it does in AWS's own strings.
    """
    text = json.dumps(overrides, separators=(",", ":"), ensure_ascii=False)
    length = len(text.encode("utf-16-le", "surrogatepass")) // 2
    if length > MAX_OVERRIDES_CHARACTERS:
        raise InvalidRequest(
            f"overrides: expected at most {MAX_OVERRIDES_CHARACTERS} characters of JSON (with command and "
            f"environment), found {length}; pass large input by reference, such as S3"
        )


def check_launchable(profile: RunTaskProfile) -> None:
    """ConfigError, naming the queue and what to set, when nothing can be launched with this profile alone."""
    main = _require_main_container(profile)
    defaults = _name_main_container(profile.run_task_kwargs, main)
    where = _choose_capacity(profile, defaults, {})
    _add_network_configuration(dict(defaults), profile, where)


def _require_main_container(profile: RunTaskProfile) -> str:
    for key, value in (("cluster", profile.cluster), ("container_name", profile.container_name)):
        if not value:
            raise _missing_key_error(profile, key)
    if not (profile.task_definition or profile.run_task_kwargs.get("taskDefinition")):
        raise _missing_key_error(profile, "task_definition")
    return str(profile.container_name)


def _missing_key_error(profile: RunTaskProfile, key: str) -> ConfigError:
    section = "aws_ecs_executor"
    return ConfigError(
        f"queue {profile.queue!r}: expected {key} to be set, found nothing; set {key} in [{section}] or "
        f"[{section}.{profile.queue}], or AIRFLOW__{section.upper()}__{key.upper()} in the environment"
    )


def _check_command(command: object) -> None:
    is_list = isinstance(command, list | tuple) and len(command) > 0
    if not is_list or not all(isinstance(word, str) for word in command):  # type: ignore[attr-defined]
        raise InvalidRequest(
            'command: expected a list of words, such as ["echo", "hello"], found '
            + ("an empty one" if command in ([], ()) else type(command).__name__)
        )


def _name_main_container(run_task_kwargs: Mapping[str, Any], main_container: str) -> Mapping[str, Any]:
    """The profile's defaults, the container override without a name being the main container's."""
    containers = run_task_kwargs.get("overrides", {}).get("containerOverrides", ())
    if all("name" in container for container in containers):
        return run_task_kwargs
    named = [{"name": main_container, **container} for container in containers]
    overrides = {**run_task_kwargs["overrides"], "containerOverrides": named}
    return {**run_task_kwargs, "overrides": overrides}


def _choose_capacity(
    profile: RunTaskProfile, defaults: Mapping[str, Any], executor_config: Mapping[str, Any]
) -> dict[str, Any]:
    """launchType or capacityProviderStrategy, of the last layer that names one; FARGATE when none does."""
    own = {"launchType": profile.launch_type, "capacityProviderStrategy": profile.capacity_provider_strategy}
    where: dict[str, Any] = {"launchType": "FARGATE"}
    for layer, error in ((own, ConfigError), (defaults, ConfigError), (executor_config, InvalidRequest)):
        chosen = {key: layer[key] for key in own if layer.get(key) is not None}
        if len(chosen) > 1:
            raise error(
                f"queue {profile.queue!r}: expected capacity_provider_strategy or launch_type, found both; "
                "leave one of them out"
            )
        where = chosen or where
    # An empty strategy means the cluster's default one, which RunTask takes when neither argument is sent.
    return {key: value for key, value in where.items() if value}


def _without_capacity(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in kwargs.items() if k not in ("launchType", "capacityProviderStrategy")}


def _is_fargate(capacity: Mapping[str, Any]) -> bool:
    strategy = capacity.get("capacityProviderStrategy")
    if strategy:
        return all(entry.get("capacityProvider") in _FARGATE_PROVIDERS for entry in strategy)
    return capacity.get("launchType") == "FARGATE"


def _add_network_configuration(kwargs: dict[str, Any], profile: RunTaskProfile, capacity: Mapping[str, Any]) -> None:
    """The network configuration from the profile's keys, below what run_task_kwargs and the request say."""
    is_fargate = _is_fargate(capacity)
    asked = kwargs.get("networkConfiguration", {}).get("awsvpcConfiguration", {})
    network: dict[str, Any] = {}
    if profile.subnets:
        network["subnets"] = list(profile.subnets)
    if profile.security_groups:
        network["securityGroups"] = list(profile.security_groups)
    needed = bool(is_fargate or network or asked or profile.assign_public_ip)
    network.update(asked)
    if not needed:
        return
    if not network.get("subnets"):
        raise ConfigError(
            f"queue {profile.queue!r}: expected at least one subnet to run a task, found none; set subnets "
            f"in [aws_ecs_executor] or [aws_ecs_executor.{profile.queue}], "
            "or networkConfiguration in run_task_kwargs"
        )
    public_ip = parse_assign_public_ip(profile.assign_public_ip, is_launch_type_ec2=not is_fargate)
    if public_ip is not None:
        network.setdefault("assignPublicIp", public_ip)
    kwargs["networkConfiguration"] = {"awsvpcConfiguration": network}
