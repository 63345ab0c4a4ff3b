"""The versions of a journalled event: what was written by an older version is brought up to the present one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ecs_queue.errors import PermanentError
from ecs_queue.journal.base import EVENT_VERSION, JournalEvent


class UndecodableEvent(PermanentError):  # noqa: N818
    """This is no event of a journal."""


#: version -> how an event of it becomes one of the next version. One is added with every new version, and
#: tests/journal/golden keeps a journal of each.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


def decode_event(raw: Mapping[str, Any]) -> JournalEvent:
    """The event, as the present version has it. UnreadableEvent when it is none, or one of a later version."""
    event = dict(raw)
    version = event.get("v")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UndecodableEvent('expected an event of a journal with its version as "v"')
    if version > EVENT_VERSION:
        raise UndecodableEvent(
            f"event version {version} is not known here, this ecs-queue knows up to {EVENT_VERSION}: use a newer one"
        )
    for older in range(version, EVENT_VERSION):
        event = UPGRADES[older](event)
    try:
        return msgspec.convert({**event, "v": EVENT_VERSION}, JournalEvent)
    except msgspec.ValidationError as error:
        raise UndecodableEvent(f"not an event of a journal: {error}") from None
