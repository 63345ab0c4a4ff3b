"""Merging run_task arguments: the later layer wins, key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Lists whose entries are merged by what names them, and the member that does; every other list is replaced as a whole.
NAMED_LISTS = {
    "containerOverrides": "name",
    "environment": "name",
    "inferenceAcceleratorOverrides": "deviceName",
    "tags": "key",
    "volumeConfigurations": "name",
}


def merge_run_task(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` overridden by `over`; neither is changed, and the result shares nothing with them.

    Objects are merged key by key, and the entries of `NAMED_LISTS` by their names: containers, variables, tags (a later
    variable of the same name replaces the earlier one in its place). Other lists and plain values are replaced. Both
    must have run_task's spelling. Merging with {} or with itself changes nothing, and (a + b) + c equals a + (b + c),
    provided that each list names an entry once.
    """
    result = {key: _copy(value) for key, value in base.items()}
    for key, value in over.items():
        result[key] = _merge_value(key, result.get(key), value)
    return result


def _merge_value(key: str, old: Any, new: Any) -> Any:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return merge_run_task(old, new)
    if key in NAMED_LISTS and isinstance(old, list) and isinstance(new, list):
        return _merge_named(old, new, NAMED_LISTS[key])
    return _copy(new)


def _merge_named(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], member: str
) -> list[dict[str, Any]]:
    by_name: dict[Any, dict[str, Any]] = {}
    for entry in (*old, *new):
        name = entry.get(member)
        by_name[name] = merge_run_task(by_name.get(name, {}), entry)
    return list(by_name.values())


def _copy(value: Any) -> Any:
    if isinstance(value, str):  # the usual case; isinstance with Mapping is slow
        return value
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return value
