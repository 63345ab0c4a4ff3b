"""The versions of a journalled event: what was written by an older version is brought up to the present one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ecs_queue.errors import PermanentError
from ecs_queue.journal.base import VERSION, JournalEvent


class UnreadableEvent(PermanentError):  # noqa: N818
    """This is no event of a journal."""


#: version -> how an event of it becomes one of the next version. One is added with every new version, and
#: tests/journal/golden keeps a journal of each.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


def event_of(raw: Mapping[str, Any]) -> JournalEvent:
    """The event, as the present version has it. UnreadableEvent when it is none, or one of a later version."""
    event = dict(raw)
    version = event.get("v")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UnreadableEvent('expected an event of a journal with its version as "v"')
    if version > VERSION:
        raise UnreadableEvent(
            f"event version {version} is not known here, this ecs-queue knows up to {VERSION}: use a newer one"
        )
    for older in range(version, VERSION):
        event = UPGRADES[older](event)
    try:
        return msgspec.convert({**event, "v": VERSION}, JournalEvent)
    except msgspec.ValidationError as error:
        raise UnreadableEvent(f"not an event of a journal: {error}") from None
