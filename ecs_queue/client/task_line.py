"""A task line: what a caller writes of one task, in a line of `submit --file` or as an element of `submit_many`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ecs_queue import durations
from ecs_queue.client.main_container import MAIN_CONTAINER_FIELDS
from ecs_queue.errors import InvalidRequest
from ecs_queue.messages.request import VERSION_2_FIELDS

_TIMES = "a time such as 2026-11-29T03:00:00Z"
#: Its members.
TASK_FIELDS = frozenset(
    {"id", "command", "queue", "executor_config", "priority", "expires_in", "relaunch", "time_limit", "traceparent"}
    | set(VERSION_2_FIELDS)
    | MAIN_CONTAINER_FIELDS
)
_DURATION_FIELDS = frozenset({"expires_in", "time_limit", "start_timeout", "delay"})


def parse_task_line(task: object) -> dict[str, Any]:
    """Return the members that are set, with durations in seconds and the command as a list.

    Raises:
        InvalidRequest: It is no object, has an unknown member, no command, or a duration that is none.
    """
    if not isinstance(task, Mapping):
        raise InvalidRequest(f'expected a task such as {{"command": ["echo", "hello"]}}, found {type(task).__name__}')
    unknown = sorted(map(str, set(task) - TASK_FIELDS))
    if unknown:
        raise InvalidRequest(f"unknown member {unknown[0]!r}; known are {', '.join(sorted(TASK_FIELDS))}")
    fields = {name: value for name, value in task.items() if value is not None}
    command = fields.get("command")
    if isinstance(command, str) or not isinstance(command, Sequence):
        raise InvalidRequest('command: expected a list of strings, for example ["echo", "hello"]')
    if "not_before" in fields:
        fields["not_before"] = _parse_time("not_before", fields["not_before"])
    if "retry_rules" in fields:
        fields["retry_rules"] = _plain_rules(fields["retry_rules"])
    fields = parse_durations(fields) | {"command": list(command)}
    if fields.get("delay") == 0:  # what a program has computed: now
        del fields["delay"]
    return fields


def parse_durations(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members with durations in seconds; raises InvalidRequest for one that is none."""
    return {
        name: _parse_duration(name, value) if name in _DURATION_FIELDS and value is not None else value
        for name, value in fields.items()
    }


def _plain_rules(rules: object) -> object:
    """Return retry rules without timedeltas, which JSON does not have. What is no list of rules is refused later."""
    if not isinstance(rules, Sequence) or isinstance(rules, str | bytes):
        return rules
    return [
        {**rule, "delay": rule["delay"].total_seconds()}
        if isinstance(rule, Mapping) and isinstance(rule.get("delay"), timedelta)
        else rule
        for rule in rules
    ]


def _parse_time(name: str, value: object) -> object:
    """Return seconds since the epoch of a datetime, or of RFC 3339 text; a number stays as it is."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.upper())  # RFC 3339 has `t` and `z`, too
        except ValueError:
            raise InvalidRequest(f"{name}: expected {_TIMES}, found {value!r:.80}") from None
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        raise InvalidRequest(f"{name}: expected {_TIMES}, found one without its time zone, {value.isoformat()}")
    return value.timestamp()


def _parse_duration(name: str, value: object) -> float:
    """Return the seconds of a member: a number, or text such as "90s" and "1h"."""
    seconds = durations.parse_duration(value)
    if name == "delay" and seconds == 0:
        return seconds
    if seconds is None or not 0 < seconds <= durations.MAX_SECONDS:
        raise InvalidRequest(f"{name}: expected a duration above 0, such as {durations.EXAMPLES}, found {value!r:.80}")
    return seconds
