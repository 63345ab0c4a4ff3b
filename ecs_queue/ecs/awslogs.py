"""Where a container's output is logged: the options of its awslogs log driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def awslogs_options(definition: Mapping[str, Any], container: str | None) -> dict[str, str] | str:
    """Return the options of a container's awslogs driver in a task definition, or a sentence about what is missing."""
    named = [found for found in definition["containerDefinitions"] if found["name"] == container]
    if not named:
        return f"the task definition has no container {container!r}; set container_name to one of its own"
    log = named[0].get("logConfiguration") or {}
    if log.get("logDriver") != "awslogs":
        return (
            f"the container {container!r} has no awslogs log driver, so its output cannot be read from CloudWatch; "
            "set logConfiguration in the task definition"
        )
    options: dict[str, str] = log.get("options") or {}
    for key in ("awslogs-group", "awslogs-stream-prefix"):
        if not options.get(key):
            return f"the container {container!r} has no {key}, without which its stream cannot be named"
    return options
