"""The policy of what a request's `executor_config` may override: a list of names that the operator configures.

A name is a key of the main container's override (`environment`), `containers.NAME.KEY` for a key of another container's
(`containers.proxy.memory`), `overrides.KEY` for a key of the task's overrides (`overrides.taskRoleArn`), or an argument
of run_task (`networkConfiguration`). `tags` allows a request to add tags, `tags.KEY` also to replace that tag of the
profile. The name of a launch policy (`retry_rules`) allows a request one of its own. `safe` stands for the default
names, `*` for all, and `none` as the only entry for no name. A KEY may be spelled as in a request; the NAME of a
container and the KEY of a tag are compared exactly, as ECS does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any

from ecs_queue.errors import ConfigError, InvalidRequest
from ecs_queue.messages.request import POLICY_FIELDS
from ecs_queue.runtask.botocore_model import container_override_shape, run_task_shape
from ecs_queue.runtask.executor_config import RESERVED_KEYS

ALLOW_EVERYTHING = "*"
ALLOW_NOTHING = "none"
ALLOW_SAFE = "safe"
#: Overrides that change only the resources and the input of the main container: a client may run any command in it
#: anyway. No override of another container is safe: it may have secrets and privileges that the main one lacks.
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
    "start_timeout",
    "retry_rules",
)
_CONTAINER_OVERRIDES = "containerOverrides"
_CONTAINERS = "containers"
_TAGS = "tags"


def check_overrides_allowed(
    executor_config: Mapping[str, Any], allowed: Collection[str], queue: str, main_container: str
) -> None:
    """Raise InvalidRequest for the first override in a normalized `executor_config` that is not allowed."""
    if ALLOW_EVERYTHING in allowed:
        return
    for name in _overridden_names(executor_config, main_container):
        is_allowed_tag = name.startswith(f"{_TAGS}.") and _TAGS in allowed
        if name not in allowed and not is_allowed_tag:
            raise InvalidRequest(f"executor_config: {_not_allowed_text(name, allowed, queue)}")


def check_policies_allowed(policies: Mapping[str, Any], allowed: Collection[str], queue: str) -> None:
    """Raise InvalidRequest for the first launch policy that a request sets and may not override.

    To do without its queue's retry rules is always allowed: it is the relaunch policy alone.
    """
    for name, value in policies.items():
        if value != [] and name not in allowed and ALLOW_EVERYTHING not in allowed:
            raise InvalidRequest(_not_allowed_text(name, allowed, queue))


def _not_allowed_text(name: str, allowed: Collection[str], queue: str) -> str:
    return (
        f"{name} may not be overridden in the queue {queue!r}: leave it out, or have it added to allowed_overrides in "
        f"[aws_ecs_executor.{queue}] or [ecs_queue]; allowed are {', '.join(allowed) or 'none'}"
    )


def keep_profile_tags(
    executor_config: Mapping[str, Any], profile_kwargs: Mapping[str, Any], allowed: Collection[str]
) -> dict[str, Any]:
    """Return the `executor_config` without the tags that the profile sets and that the request may not replace."""
    kept = dict(executor_config)
    if _TAGS in kept and ALLOW_EVERYTHING not in allowed:
        fixed = {tag.get("key") for tag in profile_kwargs.get(_TAGS, ()) if f"{_TAGS}.{tag.get('key')}" not in allowed}
        kept[_TAGS] = [tag for tag in kept[_TAGS] if tag.get("key") not in fixed]
    return kept


def parse_allowed_overrides(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names for `check_overrides_allowed`, in ECS's spelling; ConfigError for an unknown one."""
    if tuple(names) == (ALLOW_NOTHING,):
        return ()
    parsed = (SAFE_OVERRIDES if name == ALLOW_SAFE else (_parse_override_name(name),) for name in names)
    return tuple(dict.fromkeys(chain.from_iterable(parsed)))


def _overridden_names(executor_config: Mapping[str, Any], main_container: str) -> Iterator[str]:
    for key, value in executor_config.items():
        if key == _TAGS:
            yield from (f"{_TAGS}.{tag.get('key')}" for tag in value)
            continue
        if key != "overrides":
            yield key
            continue
        for inner, item in value.items():
            if inner != _CONTAINER_OVERRIDES:
                yield f"overrides.{inner}"
                continue
            for container in item:
                # Only the main container's own name gives the unqualified names; an unknown one is another container.
                is_main = container.get("name") == main_container
                prefix = "" if is_main else f"{_CONTAINERS}.{container.get('name')}."
                yield from (f"{prefix}{name}" for name in container if name != "name")


def _parse_override_name(name: str) -> str:
    if name == ALLOW_EVERYTHING or name in POLICY_FIELDS:
        return name
    run_task, container = run_task_shape(), container_override_shape()
    task = run_task.members["overrides"]
    known = {*run_task.members, *container.members} - {*RESERVED_KEYS, "overrides", "name"}
    known |= {f"overrides.{key}" for key in task.members if key != _CONTAINER_OVERRIDES}
    head, dot, tail = name.partition(".")
    if not dot:
        found = run_task.find_member(name) or container.find_member(name)
    elif head.lower() == _TAGS and tail:
        return f"{_TAGS}.{tail}"
    elif head.lower() == _CONTAINERS:
        return _parse_container_name(name, tail)
    elif run_task.find_member(head) == "overrides":
        found = f"overrides.{task.find_member(tail)}"
    else:
        found = None
    if found in known:
        return str(found)
    raise _unknown_name_error(name, known | set(POLICY_FIELDS))


def _parse_container_name(name: str, tail: str) -> str:
    """Return `containers.NAME.KEY` with ECS's spelling of the key; ECS allows no dot in a container's name."""
    shape = container_override_shape()
    container, _, key = tail.partition(".")
    found = shape.find_member(key)
    if container and found and found != "name":
        return f"{_CONTAINERS}.{container}.{found}"
    raise _unknown_name_error(
        name, {f"{_CONTAINERS}.{container or 'NAME'}.{key}" for key in shape.members.keys() - {"name"}}
    )


def _unknown_name_error(name: str, known: Collection[str]) -> ConfigError:
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(names)}"
    return ConfigError(
        f"expected names of overrides, {ALLOW_SAFE}, {ALLOW_EVERYTHING} or {ALLOW_NOTHING}, found {name!r}{hint}"
    )
