"""One event of the journal on one line, for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.output import shortened, show, show_json

if TYPE_CHECKING:
    from ecs_queue.journal import JournalEvent

_LONGEST = 160


def show_event(event: JournalEvent, as_json: bool) -> None:
    """As a line on stdout, at once: somebody may be following."""
    if as_json:
        import msgspec

        show_json(msgspec.to_builtins(event))
    else:
        words = (moment_of(event.at), event.worker or "-", event.name, event.id, detail_of(event))
        show("  ".join(word for word in words if word))


def moment_of(at: float) -> str:
    """RFC 3339, UTC, milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def detail_of(event: JournalEvent) -> str:
    """What happened, without the id: the facts that logs show too, and of a decision what was decided."""
    from ecs_queue.telemetry import EVENTS

    kind = EVENTS.get(event.name)
    names = [name for name in kind.fields if name != "id"] if kind else list(event.data)
    words = [f"{name}={_text(event.data[name])}" for name in names if event.data.get(name) not in (None, "")]
    return shortened(" ".join(words), _LONGEST)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
