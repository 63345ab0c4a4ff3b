"""A request's `executor_config` and a profile's `run_task_kwargs`: checked, in run_task's own form.

Both may be written in two spellings: flat keys of a ContainerOverride meant for the main container
(`{"cpu": 512, "environment": [...]}`), or run_task's own (`{"overrides": {"containerOverrides": [...]}}`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecs_queue.core.ecs_model import conform, container_override_shape, run_task_shape, unknown_key
from ecs_queue.errors import InvalidRequest

#: Arguments that are not the user's, and why.
OWNED_KEYS = {
    "clientToken": "ecs-queue sets it, so that no launch happens twice",
    "startedBy": "ecs-queue sets it, to find its tasks again",
    "count": "one request is one task; submit more requests",
    "cluster": "it belongs to the queue; set cluster in [aws_ecs_executor.NAME] and submit to the queue NAME",
}
_REFUSED_KEYS = {
    "name": "the flat keys always mean the main container; for others use overrides.containerOverrides",
    "command": "the command is the request's own",
}


def validate_executor_config(executor_config: Mapping[str, Any] | None, container_name: str | None = None) -> None:
    """Refuse an `executor_config` that cannot become run_task arguments, before anything is queued.

    `container_name` is the main container's; None when it is not known here, then a `command` for it is
    found only where its container is not named. InvalidRequest names the key, what was expected and what
    was found.
    """
    conform_executor_config(executor_config, container_name)


def conform_executor_config(executor_config: Mapping[str, Any] | None, container_name: str | None) -> dict[str, Any]:
    """The `executor_config` in run_task's form, a copy; {} for None.

    InvalidRequest as in validate_executor_config.
    """
    return _conform(executor_config, container_name, "executor_config")


def conform_run_task_kwargs(run_task_kwargs: Mapping[str, Any], container_name: str | None) -> dict[str, Any]:
    """A profile's `run_task_kwargs` in run_task's form, a copy.

    InvalidRequest names the key that is wrong.
    """
    return _conform(run_task_kwargs, container_name, "run_task_kwargs")


def _conform(given: object, main: str | None, path: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"{path}: expected an object, found {type(given).__name__}")
    whole, flat = _sort_keys(given, path)
    if flat and "overrides" in whole:
        raise InvalidRequest(
            f"{path}: expected either flat keys for the main container or overrides, found "
            f"{', '.join(sorted(flat))} beside overrides; move them into overrides.containerOverrides"
        )
    containers = whole.get("overrides", {}).get("containerOverrides")
    if containers is not None:
        _check_containers(containers, main, f"{path}.overrides.containerOverrides")
    if flat:
        whole["overrides"] = {"containerOverrides": [{**_named(main), **flat}]}
    return whole


def _named(main: str | None) -> dict[str, str]:
    return {} if main is None else {"name": main}


def _sort_keys(given: Mapping[Any, Any], path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys of run_task and those of a container override, spelled and checked."""
    run_task, container = run_task_shape(), container_override_shape()
    whole: dict[str, Any] = {}
    flat: dict[str, Any] = {}
    for key, value in given.items():
        spelled = str(key)
        is_flat = run_task.spell(spelled) is None
        shape, target = (container, flat) if is_flat else (run_task, whole)
        name = shape.spell(spelled)
        if name is None:
            known = {**run_task.members, **container.members}
            for own in (*OWNED_KEYS, *_REFUSED_KEYS):
                known.pop(own, None)
            raise unknown_key(path, key, known, "ECS RunTask or of a container override")
        why = OWNED_KEYS.get(name) or _REFUSED_KEYS.get(name)
        if why:
            raise InvalidRequest(f"{path}.{name}: expected no such key, found {spelled!r}: {why}")
        if name in target:
            raise InvalidRequest(f"{path}.{name}: expected once, found in two spellings")
        target[name] = conform(value, shape.members[name], f"{path}.{name}")
    return whole, flat


def _check_containers(containers: list[dict[str, Any]], main: str | None, path: str) -> None:
    """Name the main container where no name stands; refuse its command, and a container that comes twice."""
    seen: set[str | None] = set()
    for position, container in enumerate(containers):
        if "name" not in container:
            container.update(_named(main))
        name = container.get("name")
        if name in seen:
            raise InvalidRequest(
                f"{path}[{position}]: expected one entry a container, found a second one for "
                f"{'the main container' if name in (None, main) else repr(name)}"
            )
        seen.add(name)
        if name in (None, main) and "command" in container:
            raise InvalidRequest(
                f"{path}[{position}].command: expected no command for the main container, found one: "
                f"{_REFUSED_KEYS['command']}"
            )
