"""ECS's events and the queue they come through: at least once or, by a fault, never; late, doubled, in any order."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from ecs_queue.ecs.event_queue import BATCH, EventMessage
from ecs_queue.errors import EventsUnavailable
from ecs_queue.launcher.pace import VISIBILITY
from ecs_queue.local.ecs.events import event_of
from tests.simulation.ecs import Task
from tests.simulation.process import Process, Stage

URL = "https://sqs.us-east-1.amazonaws.com/123456789012/events"
#: The share of the seeds that have events.
_SHARE = 0.4
#: A receipt ends without a message at the latest so long after its begin. Seconds.
_LONGEST_RECEIPT = 40.0
_READ_TIME_OUT = 15.0


class EventFaults(NamedTuple):
    """Chances for each event; `trouble` for each call of a worker to the queue."""

    drop: float = 0.0
    double: float = 0.0
    delay: float = 0.0
    trouble: float = 0.0


def draw(seed: int) -> EventFaults | None:
    """A seed's faults; None: it has no events. Of a luck of its own: seeds without events are what they were before."""
    rng = random.Random(f"events {seed}")
    if rng.random() >= _SHARE:
        return None
    return EventFaults(*(rng.choice((0.0, 0.05, 0.5)) for _ in EventFaults._fields))


class Topic:
    """Rule and queue in one: tells of each change of a task, and keeps what was told until it is deleted."""

    def __init__(self, stage: Stage, faults: EventFaults) -> None:
        self._stage = stage
        self._faults = faults
        self._messages: dict[str, tuple[str, float]] = {}  # handle -> body, visible from
        self._sent = 0

    def heal(self) -> None:
        """From now on each event comes soon, and once."""
        self._faults = EventFaults()

    @property
    def trouble(self) -> float:
        """The chance that a call to the queue fails."""
        return self._faults.trouble

    def tell(self, task: Task) -> None:
        """A task has changed."""
        stage = self._stage
        if stage.chance(self._faults.drop):
            return
        body = event_of(json.dumps(task.view).encode(), "us-east-1", "123456789012", stage.now)
        for _ in range(2 if stage.chance(self._faults.double) else 1):
            wait = stage.rng.uniform(0.05, 1.5)
            if stage.chance(self._faults.delay):
                wait = stage.rng.choice((5.0, 60.0, 2000.0)) * stage.rng.random()
            stage.scheduler.after(wait, lambda: self._put(body))

    def take(self, number: int) -> list[EventMessage]:
        """What is visible, and hidden from now on."""
        now = self._stage.now
        found = [(handle, body) for handle, (body, shown_from) in self._messages.items() if shown_from <= now]
        self._stage.rng.shuffle(found)
        for handle, body in found[:number]:
            self._messages[handle] = body, now + VISIBILITY
            self._stage.scheduler.after(VISIBILITY, self._stage.scheduler.rouse)
        return [EventMessage(body, handle) for handle, body in found[:number]]

    def delete(self, handles: Sequence[str]) -> None:
        """They do not come again."""
        for handle in handles:
            self._messages.pop(handle, None)

    def _put(self, body: str) -> None:
        self._sent += 1
        self._messages[str(self._sent)] = (body, 0.0)
        self._stage.scheduler.rouse()


class SimEventQueue:
    """An `EventQueue` as one process reaches it."""

    def __init__(self, process: Process, topic: Topic) -> None:
        self._process = process
        self._stage = process.stage
        self._topic = topic

    def receive(self) -> list[EventMessage]:
        """See `EventQueue`."""
        self._call("ReceiveMessage")
        found = self._topic.take(BATCH)
        if not found:
            self._stage.scheduler.park(_LONGEST_RECEIPT, 0.5)
            found = self._topic.take(BATCH)
        if self._stage.traced and found:
            told: list[Any] = [json.loads(message.body)["detail"] for message in found]
            events = [f"{task['taskArn'][-2:]} v{task['version']} {task['lastStatus']}" for task in told]
            self._stage.tell(f"ReceiveMessage -> {', '.join(events)}")
        self._process.step("the messages are read")
        return found

    def delete(self, messages: Sequence[EventMessage]) -> int:
        """See `EventQueue`."""
        self._call("DeleteMessageBatch")
        self._topic.delete([message.handle for message in messages])
        return 0

    def _call(self, operation: str) -> None:
        self._process.step(operation)
        if "ecs" in self._process.cut_off or self._stage.chance(self._topic.trouble):
            self._stage.scheduler.sleep(_READ_TIME_OUT)
            self._stage.tell(f"{operation} fails")
            raise EventsUnavailable
