"""A worker that reads ECS events, stepped by the test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecs_queue.protocol.event_health import EventFact, EventFactKind, queue_source
from ecs_queue.worker.event_listener import EventListener
from ecs_queue.worker.poll_schedule import EventAwareSchedule
from tests.fake_event_queue import FakeEventQueue, build_event_message
from tests.worker.harness import SteppedWorker, WorkerHarness

URL = "https://sqs.us-east-1.amazonaws.com/123456789012/events"
SOURCE = f"us-east-1/123456789012/jobs@{queue_source(URL)}"


class EventListenerHarness(WorkerHarness):
    """A harness whose tasks emit each change into `pending_events`, and whose worker reads the queue."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(environ, event_queue_url=URL)
        self.event_queue = FakeEventQueue(self.clock)
        self.listener = self.make_listener(self.worker)
        self.pending_events: list[str] = []
        self.is_listening = True
        moved = self.ecs._update_task

        def move(arn: str, **what: Any) -> None:
            moved(arn, **what)
            self.pending_events.append(build_event_message(self.ecs.tasks[arn], self.clock()))

        self.ecs._update_task = move  # type: ignore[method-assign]

    def make_listener(self, worker: SteppedWorker) -> EventListener:
        assert isinstance(worker.poll_schedule, EventAwareSchedule)
        return EventListener(
            worker.context, worker.poller.reconciler, worker.poll_schedule, self.event_queue, queue_source(URL)
        )

    @property
    def poll_schedule(self) -> EventAwareSchedule:
        assert isinstance(self.worker.poll_schedule, EventAwareSchedule)
        return self.worker.poll_schedule

    def deliver_events(self) -> None:
        """Pending events come into the queue, and the worker reads them."""
        self.event_queue.send(*self.pending_events)
        self.pending_events.clear()
        self.listen()

    def listen(self) -> None:
        while len(self.event_queue) and self.listener.step() == 0.0 and self.make_listener(self.worker).step() == 0.0:
            pass
        self.poll_schedule.step()

    def advance(self, seconds: float) -> None:
        """The worker reads its events, too."""
        super().advance(seconds)
        if self.is_listening:
            self.listener.step()
            self.poll_schedule.step()

    def trust_events(self) -> None:
        """Events have come lately."""
        self.memory_ledger.record_event_facts([EventFact(SOURCE, EventFactKind.TIMELY, self.clock())])
        self.poll_schedule.step()
