"""A broker in memory: it loses, doubles, delays and reorders messages, and its consumers die with messages in hand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ecs_queue.broker.base import OnDelivery, OnUndecodable, RequestMessage
from ecs_queue.errors import BrokerUnavailable
from tests.simulation.process import SimProcess, SimulationContext

#: Seconds after which a message that was not acknowledged is delivered again (the configuration's default).
VISIBILITY_SECONDS = 60.0
#: The most seconds between two reads of an empty queue.
_MAX_WAIT_SECONDS = 30.0


@dataclass(slots=True)
class SimMessage:
    """A message. It may be taken from `visible_at` on."""

    queue: str
    body: bytes
    visible_at: float
    gone: bool = False
    taken: bool = False


@dataclass(slots=True)
class SimQueues:
    """All messages."""

    requests: list[SimMessage] = field(default_factory=list)
    results: dict[str, list[SimMessage]] = field(default_factory=dict)


class SimBrokerServer:
    """The broker itself."""

    def __init__(self, context: SimulationContext) -> None:
        self.context = context
        self.queues = SimQueues()

    def enqueue(self, messages: list[SimMessage], queue: str, body: bytes) -> None:
        """Deliver a message: late, twice, or never, as the faults have it."""
        faults, rng = self.context.faults, self.context.rng
        if self.context.happens(faults.drop):
            self.context.trace(f"a message to {queue} is lost")
            return
        for _ in range(2 if self.context.happens(faults.double) else 1):
            delay = rng.random() * 0.05
            if self.context.happens(faults.delay):
                delay = rng.choice((5.0, 100.0, 3000.0)) * rng.random()
            messages.append(SimMessage(queue, body, self.context.now + delay))
            self.context.scheduler.notify_parked(self.context.now + delay)

    def take(self, messages: list[SimMessage], without: Collection[str] = ()) -> SimMessage | None:
        """Take the next visible message, of a queue that is not `without`, and hide it for the visibility timeout."""
        now = self.context.now
        messages[:] = [message for message in messages if not message.gone]
        ready = [message for message in messages if message.visible_at <= now and message.queue not in without]
        if not ready:
            return None
        message = ready[0] if len(ready) == 1 else self.context.rng.choice(ready)
        message.visible_at = now + VISIBILITY_SECONDS
        return message

    def next_visible(self, messages: list[SimMessage]) -> float:
        """Return the time at which a message may be taken."""
        return min((message.visible_at for message in messages if not message.gone), default=float("inf"))


class SimBroker:
    """The `Broker` of one process."""

    def __init__(self, process: SimProcess, server: SimBrokerServer) -> None:
        self._process = process
        self._server = server

    def publish_requests(self, messages: Sequence[RequestMessage]) -> None:
        self._process.step("publish_requests")
        self._publish([(self._server.queues.requests, each.queue, each.body) for each in messages])

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        self._process.step("publish_results")
        results = self._server.queues.results
        self._publish([(results.setdefault(owner, []), owner, body) for owner, body in messages])

    def _publish(self, messages: list[tuple[list[SimMessage], str, bytes]]) -> None:
        context = self._process.context
        if context.happens(context.faults.publish_before):
            self._fail("not published")
        for target, queue, body in messages:
            context.trace(f"publish to {queue}")
            self._server.enqueue(target, queue, body)
        if context.happens(context.faults.publish_after):
            self._fail("published, the reply is lost")

    def consume_requests(
        self, queues: Sequence[str], prefetch: int, on_delivery: OnDelivery, on_undecodable: OnUndecodable
    ) -> SimConsumer:
        self._process.step("consume")
        return SimConsumer(self._process, self._server, queues, prefetch, on_delivery)

    def consume_results(self, owner: str) -> SimInbox:
        return SimInbox(self._process, self._server, owner)

    def delete_result_queue(self, owner: str) -> None:
        self._server.queues.results.pop(owner, None)

    def backlog(self, queue: str) -> int:
        return len(self._server.queues.requests)

    def check(self, queues: Sequence[str] = (), *, may_create: bool = True) -> None:
        """Always available."""

    def close(self) -> None:
        """Nothing to close."""

    def _fail(self, description: str) -> None:
        self._process.context.trace(description)
        self._process.context.scheduler.sleep(1.0)
        raise BrokerUnavailable


class SimDelivery:
    """A `Delivery`."""

    def __init__(self, process: SimProcess, message: SimMessage, on_settled: Callable[[SimDelivery], None]) -> None:
        self._process = process
        self._message = message
        self._on_settled = on_settled
        self.queue = message.queue
        self.body = message.body
        self.redelivered = message.taken
        message.taken = True

    def ack(self) -> None:
        self._process.step("ack")
        self._on_settled(self)
        if not self._process.context.happens(self._process.context.faults.ack_lost):
            self._process.context.trace("ack")
            self._message.gone = True

    def requeue(self) -> None:
        self._process.step("release")
        self._on_settled(self)
        self._message.visible_at = self._process.context.now

    def requeue_at_front(self) -> None:
        self.requeue()


class SimConsumer:
    """A `RequestConsumer`."""

    def __init__(
        self,
        process: SimProcess,
        server: SimBrokerServer,
        queues: Sequence[str],
        prefetch: int,
        on_delivery: OnDelivery,
    ) -> None:
        self._process = process
        self._queues = queues
        self._context = process.context
        self._server = server
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._deliveries: list[SimDelivery] = []
        self._suspended: set[str] = set()
        self._was_empty = False

    def drain(self, timeout: float, limits: Mapping[str, int] | None = None) -> int:
        self._process.step("drain")
        if len(self._suspended) == len(self._queues) or len(self._deliveries) >= self._prefetch:
            self._context.scheduler.sleep(timeout)
            return 0
        taken = self._take() or self._take_later(timeout)
        self._was_empty = not taken
        return taken

    def suspend(self, queue: str) -> None:
        self._suspended.add(queue)

    def resume(self, queue: str) -> None:
        self._suspended.discard(queue)

    def restore_expired(self) -> bool:
        """Messages of dead processes become visible by themselves."""
        return False

    def close(self) -> None:
        for delivery in list(self._deliveries):
            delivery.requeue()

    def _take_later(self, timeout: float) -> int:
        if timeout <= 0:
            return 0
        # The first drain of an empty queue returns in time; the next ones may take longer, as there is nothing to do.
        patience = _MAX_WAIT_SECONDS if self._was_empty and not self._deliveries else timeout
        left = self._server.next_visible(self._server.queues.requests) - self._context.now
        self._context.scheduler.park(max(0.01, min(patience, left)), 0.05)
        return self._take()

    def _take(self) -> int:
        taken = 0
        while len(self._deliveries) < self._prefetch:
            message = self._server.take(self._server.queues.requests, self._suspended)
            if message is None:
                break
            taken += 1
            delivery = SimDelivery(self._process, message, self._settle)
            self._deliveries.append(delivery)
            self._on_delivery(delivery)
        return taken

    def _settle(self, delivery: SimDelivery) -> None:
        if delivery in self._deliveries:
            self._deliveries.remove(delivery)


class SimInbox:
    """A `ResultConsumer`."""

    def __init__(self, process: SimProcess, server: SimBrokerServer, owner: str) -> None:
        self._process = process
        self._server = server
        self._messages = server.queues.results.setdefault(owner, [])

    def drain(self, timeout: float) -> list[bytes]:
        self._process.step("drain results")
        context = self._process.context
        bodies = self._take()
        if not bodies:
            left = self._server.next_visible(self._messages) - context.now
            context.scheduler.park(max(timeout, min(_MAX_WAIT_SECONDS, left)), timeout)
            bodies = self._take()
        return bodies

    def close(self) -> None:
        """Nothing to close."""

    def _take(self) -> list[bytes]:
        bodies = []
        while (message := self._server.take(self._messages)) is not None:
            message.gone = True
            bodies.append(message.body)
        return bodies
