"""The fields of a request: their types, what is expected of them in words, and what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeGuard

import msgspec

from ecs_queue.durations import MAX_SECONDS
from ecs_queue.messages.labels import NAME_RULE
from ecs_queue.messages.queue_names import QUEUE_NAME_RULE

#: RunTask's clientToken is made of the id: at most 64 characters in all.
MAX_ID_LENGTH = 48
Relaunch = Literal["never_started", "interrupted", "any_failure"]
# (?!\n): `$` in Python matches before a final line break; `$` in ECMAScript, which JSON schema uses, does not.
TaskId = Annotated[str, msgspec.Meta(pattern=rf"^[A-Za-z0-9_-]{{1,{MAX_ID_LENGTH}}}(?!\n)$")]
QueueName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}(?!\n)$")]
OwnerName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{0,64}(?!\n)$")]
OriginId = Annotated[str, msgspec.Meta(pattern=rf"^[A-Za-z0-9_-]{{0,{MAX_ID_LENGTH}}}(?!\n)$")]
_TRACEPARENT = r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"
#: A W3C traceparent of version 00; "" for none. https://www.w3.org/TR/trace-context/#traceparent-header
Traceparent = Annotated[str, msgspec.Meta(pattern=rf"^({_TRACEPARENT})?(?!\n)$")]
Command = Annotated[list[str], msgspec.Meta(min_length=1)]
Labels = Annotated[dict[str, str], msgspec.Meta(max_length=50)]
#: Who submitted a request: no control characters.
PersonName = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]*(?!\n)$")]
#: What shares the limit `max_per_key`: no control characters.
ConcurrencyKey = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]*(?!\n)$")]
RetryRules = Annotated[list[dict[str, Any]], msgspec.Meta(max_length=10)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=MAX_SECONDS)]
#: Up to the year 9999, the range of the ledger's times. It refuses milliseconds, a common mistake.
EpochSeconds = Annotated[float, msgspec.Meta(gt=0, le=253_402_300_799)]
#: An RFC 3339 time with its offset.
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
#: The deepest executor_config that is accepted; run_task's own arguments nest less than ten deep.
MAX_DEPTH = 32

#: What the caller may set, in words, for errors.
EXPECTED_FIELDS: Mapping[str, str] = {
    "id": f"1 to {MAX_ID_LENGTH} of A-Z a-z 0-9 _ -",
    "command": 'a list of strings, such as ["echo", "hello"]',
    "queue": QUEUE_NAME_RULE,
    "executor_config": 'an object such as {"cpu": 512}',
    "priority": "a whole number from 0 to 9",
    "expires_in": f"a number of seconds above 0, at most {MAX_SECONDS:g}",
    "time_limit": f"a number of seconds above 0, at most {MAX_SECONDS:g}",
    "retry_rules": 'a list of at most 10 objects such as {"on_exit_code": "137", "action": "retry"}',
    "labels": 'at most 50 texts by name, such as {"team": "data"}',
    "submitted_by": f"at most {NAME_RULE}",
    "concurrency_key": f"1 to {NAME_RULE}",
    "delay": f"a number of seconds above 0, at most {MAX_SECONDS:g}",
    "not_before": "seconds since the epoch, before the year 10000",
    "start_timeout": f"a number of seconds above 0, at most {MAX_SECONDS:g}",
    "relaunch": "never_started, interrupted or any_failure",
    "owner": "at most 64 of A-Z a-z 0-9 _ . -",
    "origin": f"at most {MAX_ID_LENGTH} of A-Z a-z 0-9 _ -",
    "traceparent": "a W3C traceparent such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "submitted_at": "seconds since the epoch, before the year 10000",
    "accept_until": "seconds since the epoch, before the year 10000",
    "expires_at": "seconds since the epoch, before the year 10000",
}
#: Their values are not shown.
_SECRET_FIELDS = frozenset({"command", "executor_config"})


def plain_text(text: str) -> str:
    """Return the text of a subclass of `str`: `f"{name}"` of a member of `class Ids(str, Enum)` is its name."""
    return str.__str__(text)


def is_traceparent(value: object) -> TypeGuard[str]:
    """Return whether it is a traceparent that a request may have; what continues no trace is ignored, not refused."""
    return isinstance(value, str) and re.fullmatch(_TRACEPARENT, value) is not None


def is_deeper_than(value: Any, max_depth: int) -> bool:
    """Return whether objects and lists nest more than `max_depth` deep in a decoded value."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return max_depth == 0 or any(is_deeper_than(item, max_depth - 1) for item in value)


def format_validation_error(message: str, members: Mapping[str, Any]) -> str:
    """Return in plain words what msgspec found wrong: `priority: expected a whole number from 0 to 9, found 10`."""
    found = re.search(r"^(.*) - at `\$\.?([a-z_]*)(.*)`$", message)
    name = found[2] if found else ""
    if name not in EXPECTED_FIELDS:
        return f"{name or 'the request'}: {found[1] if found else message}"
    value = members.get(name)
    shown = type(value).__name__ if name in _SECRET_FIELDS else f"{value!r:.80}"
    if name in _SECRET_FIELDS and isinstance(value, list | tuple):
        shown = ", ".join(sorted({type(item).__name__ for item in value})) if value else "an empty one"
        shown = f"one of {shown}" if value else shown
    return f"{name}: expected {EXPECTED_FIELDS[name]}, found {shown}"
