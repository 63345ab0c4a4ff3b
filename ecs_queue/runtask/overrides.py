"""What a request's `executor_config` may override: a list of names that the operator keeps.

A name is a key of a container override (`environment`, of any container), `overrides.KEY` for a key of the whole
task's (`overrides.taskRoleArn`), or an argument of run_task (`networkConfiguration`). `safe` stands for the default
ones, `*` for all, and `none`, alone, for not one.
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
#: What changes only how much a container gets and what it is told: whoever may submit may run any command in it
#: anyway. Not among them is whatever changes who the task is, where it runs, what it reaches or who may enter it;
#: nor `environmentFiles`, which ECS reads with the rights of the execution role.
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
    """InvalidRequest for the first override that is not allowed. `asked`: an `executor_config` in run_task's form."""
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
    """The names as `check_allowed` wants them, spelled as ECS does; ConfigError for an unknown one."""
    if tuple(names) == (ALLOW_NOTHING,):
        return ()
    each = (SAFE_OVERRIDES if name == ALLOW_SAFE else (_parse_override_name(name),) for name in names)
    return tuple(dict.fromkeys(chain.from_iterable(each)))


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
    head, dot, tail = name.partition(".")
    if dot:
        spelled = task.find_member(tail) if run_task.find_member(head) == "overrides" else None
        found = None if spelled in (None, _CONTAINER_OVERRIDES) else f"overrides.{spelled}"
    else:
        found = run_task.find_member(name) or container.find_member(name)
    if found is not None and found not in (*RESERVED_KEYS, "overrides", "name"):
        return found
    own = {*run_task.members, *container.members} - {*RESERVED_KEYS, "overrides", "name"}
    every = [*own, *(f"overrides.{key}" for key in task.members if key != _CONTAINER_OVERRIDES)]
    near = get_close_matches(name, every, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(every))}"
    raise ConfigError(
        f"expected names of overrides, {ALLOW_SAFE}, {ALLOW_EVERYTHING} or {ALLOW_NOTHING}, found {name!r}{hint}"
    )
