"""Prints one event of the journal on one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.ui.durations import format_timestamp_ms
from ecs_queue.cli.ui.output import print_json, print_stdout, truncate

if TYPE_CHECKING:
    from ecs_queue.journal import JournalEvent

_MAX_FIELDS_LENGTH = 160


def print_event(event: JournalEvent, as_json: bool) -> None:
    """Print one line to stdout and flush it, so that `tail -f` shows events as they come."""
    if as_json:
        print_json(event_for_json(event))
    else:
        parts = (format_timestamp_ms(event.at), event.worker or "-", event.name, event.id, format_event_fields(event))
        print_stdout("  ".join(filter(None, parts)))


def event_for_json(event: JournalEvent) -> dict[str, Any]:
    """Return the event's members; where signing_keys are set also `verified`."""
    from ecs_queue.journal.base import event_to_dict

    members = event_to_dict(event)
    return members if event.verified is None else {**members, "verified": event.verified}


def format_event_fields(event: JournalEvent) -> str:
    """Return the fields that logs show too, without the id; all fields of an event that logs do not know.

    An event that no signing key verifies is marked.
    """
    from ecs_queue.telemetry import EVENTS

    kind = EVENTS.get(event.name)
    names = [name for name in kind.fields if name != "id"] if kind else list(event.data)
    parts = [f"{name}={_format_value(event.data[name])}" for name in names if event.data.get(name) not in (None, "")]
    if event.verified is False:
        parts.insert(0, "NOT VERIFIED")
    return truncate(" ".join(parts), _MAX_FIELDS_LENGTH)


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
