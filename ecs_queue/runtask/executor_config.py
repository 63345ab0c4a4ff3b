"""Checks a request's `executor_config` and a profile's `run_task_kwargs` and converts them to run_task's form.

Both may be given in two forms: flat keys of a container override, which mean the main container
(`{"cpu": 512, "environment": [...]}`), or run_task's own form (`{"overrides": {"containerOverrides": [...]}}`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecs_queue.errors import InvalidRequest
from ecs_queue.runtask.botocore_model import container_override_shape, normalize, run_task_shape, unknown_key_error

#: Arguments that a user may not set, and why.
RESERVED_KEYS = {
    "clientToken": "ecs-queue sets it so that no launch happens twice",
    "startedBy": "ecs-queue sets it to find its tasks again",
    "count": "one request is one task; submit more requests",
    "cluster": "it belongs to the queue; set cluster in [aws_ecs_executor.NAME] and submit to the queue NAME",
}
#: Arguments for which AWS wants ecs:TagResource or the long ARN format.
_TAG_KEYS = ("tags", "propagateTags", "enableECSManagedTags")
_FORBIDDEN_KEYS = {
    "name": "the flat keys always mean the main container; for others use overrides.containerOverrides",
    "command": "the command is the request's own",
}


def normalize_executor_config(
    executor_config: Mapping[str, Any] | None, container_name: str | None = None
) -> dict[str, Any]:
    """Return a copy of `executor_config` in run_task's form; {} for None.

    `container_name` is the main container's. Without it, a `command` for the main container is found only in an
    override without a name.

    Raises:
        InvalidRequest: It cannot become run_task arguments; names the key, what was expected and what was found.
    """
    return _normalize(executor_config, container_name, "executor_config")


def normalize_run_task_kwargs(run_task_kwargs: Mapping[str, Any], container_name: str | None) -> dict[str, Any]:
    """Return a copy of a profile's `run_task_kwargs` in run_task's form; InvalidRequest names the wrong key."""
    return _normalize(run_task_kwargs, container_name, "run_task_kwargs")


def find_choices(executor_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a normalized `executor_config` chooses that may not be allowed: "tags", "capacity", and its roles."""
    if not executor_config:  # most requests
        return ()
    overrides = executor_config.get("overrides", {})
    roles = [overrides[key] for key in ("taskRoleArn", "executionRoleArn") if overrides.get(key)]
    sets_tags = any(executor_config.get(key) for key in _TAG_KEYS)
    sets_capacity = bool(executor_config.get("capacityProviderStrategy"))
    return (*["tags"] * sets_tags, *["capacity"] * sets_capacity, *dict.fromkeys(roles))


def _normalize(config: object, main_container: str | None, path: str) -> dict[str, Any]:
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        raise InvalidRequest(f"{path}: expected an object, found {type(config).__name__}")
    whole, flat = _split_keys(config, path)
    if flat and "overrides" in whole:
        raise InvalidRequest(
            f"{path}: expected either flat keys for the main container or overrides, found "
            f"{', '.join(sorted(flat))} beside overrides; move them into overrides.containerOverrides"
        )
    containers = whole.get("overrides", {}).get("containerOverrides")
    if containers is not None:
        _check_container_overrides(containers, main_container, f"{path}.overrides.containerOverrides")
    if flat:
        whole["overrides"] = {"containerOverrides": [{**_name_entry(main_container), **flat}]}
    return whole


def _name_entry(main_container: str | None) -> dict[str, str]:
    return {} if main_container is None else {"name": main_container}


def _split_keys(config: Mapping[Any, Any], path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys of run_task and the flat keys of a container override, normalized and checked."""
    run_task, container = run_task_shape(), container_override_shape()
    whole: dict[str, Any] = {}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        given = str(key)
        is_flat = run_task.find_member(given) is None
        shape, target = (container, flat) if is_flat else (run_task, whole)
        name = shape.find_member(given)
        if name is None:
            known = {**run_task.members, **container.members}.keys() - {*RESERVED_KEYS, *_FORBIDDEN_KEYS}
            raise unknown_key_error(path, key, known, "ECS RunTask or of a container override")
        reason = RESERVED_KEYS.get(name) or _FORBIDDEN_KEYS.get(name)
        if reason:
            raise InvalidRequest(f"{path}.{name}: expected no such key, found {given!r}: {reason}")
        if name in target:
            raise InvalidRequest(f"{path}.{name}: expected once, found in two spellings")
        target[name] = normalize(value, shape.members[name], f"{path}.{name}")
    return whole, flat


def _check_container_overrides(containers: list[dict[str, Any]], main_container: str | None, path: str) -> None:
    """Name the main container in unnamed overrides; refuse its command, and a second override of a container."""
    names: set[str | None] = set()
    for position, container in enumerate(containers):
        if "name" not in container:
            container.update(_name_entry(main_container))
        name = container.get("name")
        if name in names:
            raise InvalidRequest(
                f"{path}[{position}]: expected one entry a container, found a second one for "
                f"{'the main container' if name in (None, main_container) else repr(name)}"
            )
        names.add(name)
        if name in (None, main_container) and "command" in container:
            raise InvalidRequest(
                f"{path}[{position}].command: expected no command for the main container, found one: "
                f"{_FORBIDDEN_KEYS['command']}"
            )
