"""Renders a request's `environment`, `cpu` and `memory` into its executor_config. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecs_queue.errors import InvalidRequest
from ecs_queue.runtask.executor_config import normalize_executor_config
from ecs_queue.runtask.merge import merge_run_task

#: The members of a task line that stand for overrides of the main container.
MAIN_CONTAINER_FIELDS = frozenset({"environment", "cpu", "memory"})


def render_main_container(fields: Mapping[str, Any], container_name: str | None) -> dict[str, Any]:
    """Return the members of a task line with `environment`, `cpu` and `memory` inside of `executor_config`.

    Args:
        fields: The members that are set.
        container_name: The name of the queue's main container; None where it is not known.

    Raises:
        InvalidRequest: One of them has no valid value, or `executor_config` sets the same thing.
    """
    given = {name: fields[name] for name in sorted(MAIN_CONTAINER_FIELDS & fields.keys())}
    if not given:
        return dict(fields)
    flat: dict[str, Any] = {name: _check_number(name, value) for name, value in given.items() if name != "environment"}
    if "environment" in given:
        flat["environment"] = _encode_variables(given["environment"])
    others = {name: value for name, value in fields.items() if name not in MAIN_CONTAINER_FIELDS}
    config = fields.get("executor_config")
    if config is None:
        return {**others, "executor_config": flat}
    normal = normalize_executor_config(config, container_name)
    containers = normal.get("overrides", {}).get("containerOverrides", [])
    if container_name is None and any("name" in container for container in containers):
        raise InvalidRequest(
            f"{', '.join(given)}: the name of the main container is not known here, and executor_config names one; "
            "set container_name in [aws_ecs_executor], or write all of it into overrides.containerOverrides"
        )
    for container in containers:
        if container.get("name") == container_name:
            _reject_conflicts(flat, container)
    return {**others, "executor_config": merge_run_task(normal, normalize_executor_config(flat, container_name))}


def _reject_conflicts(flat: Mapping[str, Any], container: Mapping[str, Any]) -> None:
    for name in sorted(flat.keys() & container.keys() - {"environment"}):
        raise InvalidRequest(f"{name}: found in the request and in its executor_config; leave one of them out")
    variables = {variable["name"] for variable in flat.get("environment", ())}
    for variable in container.get("environment", ()):
        if variable.get("name") in variables:
            raise InvalidRequest(
                f"environment: found {variable['name']} in the request and in its executor_config; leave one out"
            )


def _check_number(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        unit = "CPU units, 1024 for a vCPU" if name == "cpu" else "MiB"
        raise InvalidRequest(f"{name}: expected a whole number above 0 ({unit}), found {value!r:.80}")
    return value


def _encode_variables(environment: object) -> list[dict[str, str]]:
    if not isinstance(environment, Mapping):
        raise InvalidRequest(
            f'environment: expected variables such as {{"DAY": "2025-01-31"}}, found {type(environment).__name__}'
        )
    for name, value in environment.items():
        if not isinstance(name, str) or not name or "=" in name:
            raise InvalidRequest("environment: expected names of variables that are not empty and have no =")
        if not isinstance(value, str):
            raise InvalidRequest(
                f"environment: expected a text as the value of {name:.80}, found {type(value).__name__}"
            )
    # In one order, so that the same variables are the same request.
    return [{"name": name, "value": environment[name]} for name in sorted(environment)]
