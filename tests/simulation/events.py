"""The task events of ECS and their queue: at least once or, by a fault, never; late, doubled, in any order."""

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
#: The most seconds that a receive call waits for a message.
_MAX_RECEIVE_SECONDS = 40.0
_READ_TIMEOUT = 15.0


class SimEventFaults(NamedTuple):
    """Probabilities for each event; `unavailable` is for each call of a worker to the queue."""

    drop: float = 0.0
    double: float = 0.0
    delay: float = 0.0
    unavailable: float = 0.0


def draw_event_faults(seed: int) -> SimEventFaults | None:
    """Return a seed's faults, or None if it uses no events. Drawn apart, so that seeds without events stay the same."""
    rng = random.Random(f"events {seed}")
    if rng.random() >= _EVENT_SEED_SHARE:
        return None
    return SimEventFaults(*(rng.choice((0.0, 0.05, 0.5)) for _ in SimEventFaults._fields))


class SimEventQueueServer:
    """EventBridge rule and SQS queue in one: one event per change of a task, kept until it is deleted."""

    def __init__(self, context: SimulationContext, faults: SimEventFaults) -> None:
        self._context = context
        self._faults = faults
        self._messages: dict[str, tuple[str, float]] = {}  # handle -> body, visible from
        self._sent = 0

    def clear_faults(self) -> None:
        """From now on each event arrives soon and once."""
        self._faults = SimEventFaults()

    @property
    def unavailable_chance(self) -> float:
        """The probability that a call to the queue fails."""
        return self._faults.unavailable

    def emit(self, task: SimTask) -> None:
        """Send the event of a changed task."""
        context = self._context
        if context.happens(self._faults.drop):
            return
        body = build_event(json.dumps(task.description).encode(), "us-east-1", "123456789012", context.now)
        for _ in range(2 if context.happens(self._faults.double) else 1):
            delay = context.rng.uniform(0.05, 1.5)
            if context.happens(self._faults.delay):
                delay = context.rng.choice((5.0, 60.0, 2000.0)) * context.rng.random()
            context.scheduler.call_after(delay, lambda: self._put(body))

    def take(self, number: int) -> list[EventMessage]:
        """Return visible messages and hide them."""
        now = self._context.now
        messages = [(handle, body) for handle, (body, visible_from) in self._messages.items() if visible_from <= now]
        self._context.rng.shuffle(messages)
        for handle, body in messages[:number]:
            self._messages[handle] = body, now + VISIBILITY_TIMEOUT
            self._context.scheduler.call_after(VISIBILITY_TIMEOUT, self._context.scheduler.notify_parked)
        return [EventMessage(body, handle) for handle, body in messages[:number]]

    def delete(self, handles: Sequence[str]) -> None:
        """Delete messages."""
        for handle in handles:
            self._messages.pop(handle, None)

    def _put(self, body: str) -> None:
        self._sent += 1
        self._messages[str(self._sent)] = (body, 0.0)
        self._context.scheduler.notify_parked()


class SimEventQueue:
    """The `EventQueue` of one process."""

    def __init__(self, process: SimProcess, server: SimEventQueueServer) -> None:
        self._process = process
        self._context = process.context
        self._server = server

    def receive(self) -> list[EventMessage]:
        """See `EventQueue`."""
        self._call("ReceiveMessage")
        messages = self._server.take(MAX_BATCH_SIZE)
        if not messages:
            self._context.scheduler.park(_MAX_RECEIVE_SECONDS, 0.5)
            messages = self._server.take(MAX_BATCH_SIZE)
        if self._context.is_traced and messages:
            details: list[Any] = [json.loads(message.body)["detail"] for message in messages]
            events = [f"{task['taskArn'][-2:]} v{task['version']} {task['lastStatus']}" for task in details]
            self._context.trace(f"ReceiveMessage -> {', '.join(events)}")
        self._process.step("the messages are read")
        return messages

    def delete(self, messages: Sequence[EventMessage]) -> int:
        """See `EventQueue`."""
        self._call("DeleteMessageBatch")
        self._server.delete([message.receipt_handle for message in messages])
        return 0

    def _call(self, operation: str) -> None:
        self._process.step(operation)
        if "ecs" in self._process.unreachable or self._context.happens(self._server.unavailable_chance):
            self._context.scheduler.sleep(_READ_TIMEOUT)
            self._context.trace(f"{operation} fails")
            raise EventQueueUnavailable
