"""An events queue in memory that does what SQS does, and the events of the fake ECS's tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ecs_queue.ecs.event_queue import BATCH, EventMessage
from ecs_queue.errors import EventsUnavailable
from ecs_queue.local.ecs.events import event_of


class FakeEventQueue:
    """An `EventQueue`. `clock`: seconds; messages that were received are hidden for `visibility` seconds."""

    def __init__(self, clock: Callable[[], float], visibility: float = 30.0) -> None:
        self._clock = clock
        self._visibility = visibility
        self._messages: dict[str, tuple[str, float]] = {}  # handle -> body, visible from
        self._number = 0
        self.receipts = 0
        self.down = False
        self.deletes = True

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self._number += 1
            self._messages[str(self._number)] = (body, 0.0)

    def __len__(self) -> int:
        return len(self._messages)

    def receive(self) -> list[EventMessage]:
        self.receipts += 1
        if self.down:
            raise EventsUnavailable
        now = self._clock()
        found = [(handle, body) for handle, (body, shown_from) in self._messages.items() if shown_from <= now][:BATCH]
        for handle, body in found:
            self._messages[handle] = body, now + self._visibility
        return [EventMessage(body, handle) for handle, body in found]

    def delete(self, messages: Sequence[EventMessage]) -> int:
        if self.down or not self.deletes:
            raise EventsUnavailable
        for message in messages:
            self._messages.pop(message.handle, None)
        return 0


def message_of(task: dict[str, Any], at: float) -> str:
    """The event of a task of the fake ECS as it is now."""
    return event_of(msgspec.json.encode(task), "us-east-1", "123456789012", at)
