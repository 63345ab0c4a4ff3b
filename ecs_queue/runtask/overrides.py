"""The policy of what a request's `executor_config` may override: a list of names that the operator configures.

A name is a key of a container override (`environment`, of any container), `overrides.KEY` for a key of the task's
overrides (`overrides.taskRoleArn`), or an argument of run_task (`networkConfiguration`). `safe` stands for the default
names, `*` for all, and `none` as the only entry for no name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any

from ecs_queue.errors import ConfigError, InvalidRequest
from ecs_queue.runtask.botocore_model import container_override_shape, run_task_shape
from ecs_queue.runtask.executor_config import RESERVED_KEYS

ALLOW_EVERYTHING = "*"
ALLOW_NOTHING = "none"
ALLOW_SAFE = "safe"
#: Overrides that change only the resources and the input of a container: a client may run any command in it anyway.
#: Not safe are those that change the task's identity, place, network or access to its containers, and
#: `environmentFiles`, which ECS reads with the permissions of the execution role.
SAFE_OVERRIDES = (
    "command",
    "environment",
    "cpu",
    "memory",
    "memoryReservation",
    "resourceRequirements",
    "overrides.cpu",
    "overrides.memory",
    "overrides.ephemeralStorage",
    "tags",
)
_CONTAINER_OVERRIDES = "containerOverrides"


def check_overrides_allowed(executor_config: Mapping[str, Any], allowed: Collection[str], queue: str) -> None:
    """Raise InvalidRequest for the first override in a normalized `executor_config` that is not allowed."""
    if ALLOW_EVERYTHING in allowed:
        return
    for name in _overridden_names(executor_config):
        if name not in allowed:
            raise InvalidRequest(
                f"executor_config: {name} may not be overridden in the queue {queue!r}: leave it out, or have it added "
                f"to allowed_overrides in [aws_ecs_executor.{queue}] or [ecs_queue]; allowed are "
                f"{', '.join(allowed) or 'none'}"
            )


def parse_allowed_overrides(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names for `check_overrides_allowed`, in ECS's spelling; ConfigError for an unknown one."""
    if tuple(names) == (ALLOW_NOTHING,):
        return ()
    parsed = (SAFE_OVERRIDES if name == ALLOW_SAFE else (_parse_override_name(name),) for name in names)
    return tuple(dict.fromkeys(chain.from_iterable(parsed)))


def _overridden_names(executor_config: Mapping[str, Any]) -> Iterator[str]:
    for key, value in executor_config.items():
        if key != "overrides":
            yield key
            continue
        for inner, item in value.items():
            if inner != _CONTAINER_OVERRIDES:
                yield f"overrides.{inner}"
            else:
                yield from (name for container in item for name in container if name != "name")


def _parse_override_name(name: str) -> str:
    if name == ALLOW_EVERYTHING:
        return name
    run_task, container = run_task_shape(), container_override_shape()
    task = run_task.members["overrides"]
    known = {*run_task.members, *container.members} - {*RESERVED_KEYS, "overrides", "name"}
    known |= {f"overrides.{key}" for key in task.members if key != _CONTAINER_OVERRIDES}
    head, dot, tail = name.partition(".")
    if not dot:
        found = run_task.find_member(name) or container.find_member(name)
    elif run_task.find_member(head) == "overrides":
        found = f"overrides.{task.find_member(tail)}"
    else:
        found = None
    if found in known:
        return str(found)
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(names)}"
    raise ConfigError(
        f"expected names of overrides, {ALLOW_SAFE}, {ALLOW_EVERYTHING} or {ALLOW_NOTHING}, found {name!r}{hint}"
    )
