"""An event queue in memory that behaves like SQS, and the events of the fake ECS's tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ecs_queue.ecs.event_queue import MAX_BATCH_SIZE, EventMessage
from ecs_queue.errors import EventQueueUnavailable
from ecs_queue.local.ecs.events import build_event


class FakeEventQueue:
    """An `EventQueue`; received messages are hidden for `visibility_timeout` seconds of `clock`."""

    def __init__(self, clock: Callable[[], float], visibility: float = 30.0) -> None:
        self._clock = clock
        self._visibility = visibility
        self._messages: dict[str, tuple[str, float]] = {}  # handle -> body, visible from
        self._number = 0
        self.receive_calls = 0
        self.is_unavailable = False
        self.can_delete = True

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self._number += 1
            self._messages[str(self._number)] = (body, 0.0)

    def __len__(self) -> int:
        return len(self._messages)

    def receive(self) -> list[EventMessage]:
        self.receive_calls += 1
        if self.is_unavailable:
            raise EventQueueUnavailable
        now = self._clock()
        found = [(handle, body) for handle, (body, shown_from) in self._messages.items() if shown_from <= now][
            :MAX_BATCH_SIZE
        ]
        for handle, body in found:
            self._messages[handle] = body, now + self._visibility
        return [EventMessage(body, handle) for handle, body in found]

    def delete(self, messages: Sequence[EventMessage]) -> int:
        if self.is_unavailable or not self.can_delete:
            raise EventQueueUnavailable
        for message in messages:
            self._messages.pop(message.receipt_handle, None)
        return 0


def build_event_message(task: dict[str, Any], at: float) -> str:
    """Return the event of a task of the fake ECS in its present state."""
    return build_event(msgspec.json.encode(task), "us-east-1", "123456789012", at)
