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

from ecs_queue.core.ecs_model import container_override_shape, run_task_shape
from ecs_queue.core.executor_config import OWNED_KEYS
from ecs_queue.errors import ConfigError, InvalidRequest

EVERYTHING = "*"
NOTHING = "none"
SAFE = "safe"
#: What changes only how much a container gets and what it is told: whoever may submit may run any command in it
#: anyway. Not among them is whatever changes who the task is, where it runs, what it reaches or who may enter it;
#: nor `environmentFiles`, which ECS reads with the rights of the execution role.
ALLOWED_BY_DEFAULT = (
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
_CONTAINERS = "containerOverrides"


def check_allowed(asked: Mapping[str, Any], allowed: Collection[str], queue: str) -> None:
    """InvalidRequest for the first override that is not allowed. `asked`: an `executor_config` in run_task's form."""
    if EVERYTHING in allowed:
        return
    for name in _names_in(asked):
        if name not in allowed:
            raise InvalidRequest(
                f"executor_config: {name} may not be overridden in the queue {queue!r}: leave it out, or have it added "
                f"to allowed_overrides in [aws_ecs_executor.{queue}] or [ecs_queue]; allowed are "
                f"{', '.join(allowed) or 'none'}"
            )


def parse_allowed(names: Sequence[str]) -> tuple[str, ...]:
    """The names as `check_allowed` wants them, spelled as ECS does; ConfigError for an unknown one."""
    if tuple(names) == (NOTHING,):
        return ()
    each = (ALLOWED_BY_DEFAULT if name == SAFE else (_known(name),) for name in names)
    return tuple(dict.fromkeys(chain.from_iterable(each)))


def _names_in(asked: Mapping[str, Any]) -> Iterator[str]:
    for key, value in asked.items():
        if key != "overrides":
            yield key
            continue
        for inner, item in value.items():
            if inner != _CONTAINERS:
                yield f"overrides.{inner}"
            else:
                yield from (name for container in item for name in container if name != "name")


def _known(name: str) -> str:
    if name == EVERYTHING:
        return name
    run_task, container = run_task_shape(), container_override_shape()
    task = run_task.members["overrides"]
    head, dot, tail = name.partition(".")
    if dot:
        spelled = task.spell(tail) if run_task.spell(head) == "overrides" else None
        found = None if spelled in (None, _CONTAINERS) else f"overrides.{spelled}"
    else:
        found = run_task.spell(name) or container.spell(name)
    if found is not None and found not in (*OWNED_KEYS, "overrides", "name"):
        return found
    own = {*run_task.members, *container.members} - {*OWNED_KEYS, "overrides", "name"}
    every = [*own, *(f"overrides.{key}" for key in task.members if key != _CONTAINERS)]
    near = get_close_matches(name, every, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(every))}"
    raise ConfigError(f"expected names of overrides, {SAFE}, {EVERYTHING} or {NOTHING}, found {name!r}{hint}")
