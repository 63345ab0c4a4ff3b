"""ECS's events and the queue they come through: at least once or, by a fault, never; late, doubled, in any order."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from ecs_queue.ecs.event_queue import MAX_BATCH_SIZE, VISIBILITY_TIMEOUT, EventMessage
from ecs_queue.errors import EventQueueUnavailable
from ecs_queue.local.ecs.events import build_event
from tests.simulation.ecs import SimTask
from tests.simulation.process import SimProcess, SimulationContext

EVENT_QUEUE_URL = "https://sqs.us-east-1.amazonaws.com/123456789012/events"
#: The share of the seeds that have events.
_EVENT_SEED_SHARE = 0.4
#: A receipt ends without a message at the latest so long after its begin. Seconds.
_MAX_RECEIVE_SECONDS = 40.0
_READ_TIME_OUT = 15.0


class SimEventFaults(NamedTuple):
    """Chances for each event; `trouble` for each call of a worker to the queue."""

    drop: float = 0.0
    double: float = 0.0
    delay: float = 0.0
    unavailable: float = 0.0


def draw_event_faults(seed: int) -> SimEventFaults | None:
    """A seed's faults; None: it has no events. Of a luck of its own: seeds without events are what they were before."""
    rng = random.Random(f"events {seed}")
    if rng.random() >= _EVENT_SEED_SHARE:
        return None
    return SimEventFaults(*(rng.choice((0.0, 0.05, 0.5)) for _ in SimEventFaults._fields))


class SimEventQueueServer:
    """Rule and queue in one: tells of each change of a task, and keeps what was told until it is deleted."""

    def __init__(self, context: SimulationContext, faults: SimEventFaults) -> None:
        self._context = context
        self._faults = faults
        self._messages: dict[str, tuple[str, float]] = {}  # handle -> body, visible from
        self._sent = 0

    def clear_faults(self) -> None:
        """From now on each event comes soon, and once."""
        self._faults = SimEventFaults()

    @property
    def unavailable_chance(self) -> float:
        """The chance that a call to the queue fails."""
        return self._faults.unavailable

    def emit(self, task: SimTask) -> None:
        """A task has changed."""
        context = self._context
        if context.happens(self._faults.drop):
            return
        body = build_event(json.dumps(task.description).encode(), "us-east-1", "123456789012", context.now)
        for _ in range(2 if context.happens(self._faults.double) else 1):
            wait = context.rng.uniform(0.05, 1.5)
            if context.happens(self._faults.delay):
                wait = context.rng.choice((5.0, 60.0, 2000.0)) * context.rng.random()
            context.scheduler.call_after(wait, lambda: self._put(body))

    def take(self, number: int) -> list[EventMessage]:
        """What is visible, and hidden from now on."""
        now = self._context.now
        found = [(handle, body) for handle, (body, shown_from) in self._messages.items() if shown_from <= now]
        self._context.rng.shuffle(found)
        for handle, body in found[:number]:
            self._messages[handle] = body, now + VISIBILITY_TIMEOUT
            self._context.scheduler.call_after(VISIBILITY_TIMEOUT, self._context.scheduler.notify_parked)
        return [EventMessage(body, handle) for handle, body in found[:number]]

    def delete(self, handles: Sequence[str]) -> None:
        """They do not come again."""
        for handle in handles:
            self._messages.pop(handle, None)

    def _put(self, body: str) -> None:
        self._sent += 1
        self._messages[str(self._sent)] = (body, 0.0)
        self._context.scheduler.notify_parked()


class SimEventQueue:
    """An `EventQueue` as one process reaches it."""

    def __init__(self, process: SimProcess, server: SimEventQueueServer) -> None:
        self._process = process
        self._context = process.context
        self._server = server

    def receive(self) -> list[EventMessage]:
        """See `EventQueue`."""
        self._call("ReceiveMessage")
        found = self._server.take(MAX_BATCH_SIZE)
        if not found:
            self._context.scheduler.park(_MAX_RECEIVE_SECONDS, 0.5)
            found = self._server.take(MAX_BATCH_SIZE)
        if self._context.is_traced and found:
            told: list[Any] = [json.loads(message.body)["detail"] for message in found]
            events = [f"{task['taskArn'][-2:]} v{task['version']} {task['lastStatus']}" for task in told]
            self._context.trace(f"ReceiveMessage -> {', '.join(events)}")
        self._process.step("the messages are read")
        return found

    def delete(self, messages: Sequence[EventMessage]) -> int:
        """See `EventQueue`."""
        self._call("DeleteMessageBatch")
        self._server.delete([message.receipt_handle for message in messages])
        return 0

    def _call(self, operation: str) -> None:
        self._process.step(operation)
        if "ecs" in self._process.cut_off or self._context.happens(self._server.unavailable_chance):
            self._context.scheduler.sleep(_READ_TIME_OUT)
            self._context.trace(f"{operation} fails")
            raise EventQueueUnavailable
