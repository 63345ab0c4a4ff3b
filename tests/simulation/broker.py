"""A broker in memory: it loses, doubles, delays and reorders messages, and its consumers die with messages in hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ecs_queue.broker.base import OnDelivery, OnUndecodable, Outgoing
from ecs_queue.errors import BrokerUnavailable
from tests.simulation.process import Process, Stage

#: Seconds after which a message that was not acknowledged is given to somebody else (the configuration's default).
VISIBILITY = 60.0
#: A consumer or owner whose queue is empty looks again at the latest after so many seconds.
_LONGEST_WAIT = 30.0


@dataclass(slots=True)
class Message:
    """`visible_at`: when it may be taken (again)."""

    queue: str
    body: bytes
    visible_at: float
    gone: bool = False
    taken: bool = False


@dataclass(slots=True)
class Queues:
    """All messages there are."""

    requests: list[Message] = field(default_factory=list)
    results: dict[str, list[Message]] = field(default_factory=dict)


class Wire:
    """The broker itself."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.queues = Queues()

    def post(self, into: list[Message], queue: str, body: bytes) -> None:
        """A message arrives, if it does."""
        faults, rng = self.stage.faults, self.stage.rng
        if self.stage.chance(faults.drop):
            self.stage.tell(f"a message to {queue} is lost")
            return
        for _ in range(2 if self.stage.chance(faults.double) else 1):
            delay = rng.random() * 0.05
            if self.stage.chance(faults.delay):
                delay = rng.choice((5.0, 100.0, 3000.0)) * rng.random()
            into.append(Message(queue, body, self.stage.now + delay))
            self.stage.scheduler.rouse(self.stage.now + delay)

    def take(self, messages: list[Message]) -> Message | None:
        """The next visible one; it is visible again later."""
        now = self.stage.now
        messages[:] = [message for message in messages if not message.gone]
        ready = [message for message in messages if message.visible_at <= now]
        if not ready:
            return None
        message = ready[0] if len(ready) == 1 else self.stage.rng.choice(ready)
        message.visible_at = now + VISIBILITY
        return message

    def next_visible(self, messages: list[Message]) -> float:
        """When one may be taken."""
        return min((message.visible_at for message in messages if not message.gone), default=float("inf"))


class SimBroker:
    """A `Broker` as one process sees it."""

    def __init__(self, process: Process, wire: Wire) -> None:
        self._process = process
        self._wire = wire

    def publish_requests(self, messages: Sequence[Outgoing]) -> None:
        self._process.step("publish_requests")
        self._publish([(self._wire.queues.requests, each.queue, each.body) for each in messages])

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        self._process.step("publish_results")
        results = self._wire.queues.results
        self._publish([(results.setdefault(owner, []), owner, body) for owner, body in messages])

    def _publish(self, messages: list[tuple[list[Message], str, bytes]]) -> None:
        stage = self._process.stage
        if stage.chance(stage.faults.publish_before):
            self._fails("not published")
        for into, queue, body in messages:
            stage.tell(f"publish to {queue}")
            self._wire.post(into, queue, body)
        if stage.chance(stage.faults.publish_after):
            self._fails("published, its answer is lost")

    def consume(
        self, queues: Sequence[str], prefetch: int, on_delivery: OnDelivery, on_undecodable: OnUndecodable
    ) -> SimConsumer:
        self._process.step("consume")
        return SimConsumer(self._process, self._wire, prefetch, on_delivery)

    def results(self, owner: str) -> SimInbox:
        return SimInbox(self._process, self._wire, owner)

    def forget_results(self, owner: str) -> None:
        self._wire.queues.results.pop(owner, None)

    def backlog(self, queue: str) -> int:
        return len(self._wire.queues.requests)

    def check(self) -> None:
        """It is there."""

    def close(self) -> None:
        """Nothing is held."""

    def _fails(self, how: str) -> None:
        self._process.stage.tell(how)
        self._process.stage.scheduler.sleep(1.0)
        raise BrokerUnavailable


class SimDelivery:
    """A `Delivery`."""

    def __init__(self, process: Process, message: Message, settled: Callable[[SimDelivery], None]) -> None:
        self._process = process
        self._message = message
        self._settled = settled
        self.queue = message.queue
        self.body = message.body
        self.redelivered = message.taken
        message.taken = True

    def ack(self) -> None:
        self._process.step("ack")
        self._settled(self)
        if not self._process.stage.chance(self._process.stage.faults.ack_lost):
            self._process.stage.tell("ack")
            self._message.gone = True

    def release(self) -> None:
        self._process.step("release")
        self._settled(self)
        self._message.visible_at = self._process.stage.now

    def put_back(self) -> None:
        self.release()


class SimConsumer:
    """A `RequestConsumer` of the one queue there is."""

    def __init__(self, process: Process, wire: Wire, prefetch: int, on_delivery: OnDelivery) -> None:
        self._process = process
        self._stage = process.stage
        self._wire = wire
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._in_hand: list[SimDelivery] = []
        self._paused = False
        self._was_empty = False

    def drain(self, timeout: float, most: Mapping[str, int] | None = None) -> int:
        self._process.step("drain")
        if self._paused or len(self._in_hand) >= self._prefetch:
            self._stage.scheduler.sleep(timeout)
            return 0
        taken = self._take() or self._take_later(timeout)
        self._was_empty = not taken
        return taken

    def pause(self, queue: str) -> None:
        self._paused = True

    def resume(self, queue: str) -> None:
        self._paused = False

    def restore(self) -> None:
        """Messages of the dead become visible by themselves here."""

    def close(self) -> None:
        for delivery in list(self._in_hand):
            delivery.release()

    def _take_later(self, timeout: float) -> int:
        if timeout <= 0:
            return 0
        # A drain of an empty queue says so after its time; the next ones may take longer, for nothing is to be done.
        patience = _LONGEST_WAIT if self._was_empty and not self._in_hand else timeout
        left = self._wire.next_visible(self._wire.queues.requests) - self._stage.now
        self._stage.scheduler.park(max(0.01, min(patience, left)), 0.05)
        return self._take()

    def _take(self) -> int:
        taken = 0
        while len(self._in_hand) < self._prefetch:
            message = self._wire.take(self._wire.queues.requests)
            if message is None:
                break
            taken += 1
            delivery = SimDelivery(self._process, message, self._settle)
            self._in_hand.append(delivery)
            self._on_delivery(delivery)
        return taken

    def _settle(self, delivery: SimDelivery) -> None:
        if delivery in self._in_hand:
            self._in_hand.remove(delivery)


class SimInbox:
    """A `ResultInbox`."""

    def __init__(self, process: Process, wire: Wire, owner: str) -> None:
        self._process = process
        self._wire = wire
        self._messages = wire.queues.results.setdefault(owner, [])

    def drain(self, timeout: float) -> list[bytes]:
        self._process.step("drain results")
        stage = self._process.stage
        found = self._take()
        if not found:
            left = self._wire.next_visible(self._messages) - stage.now
            stage.scheduler.park(max(timeout, min(_LONGEST_WAIT, left)), timeout)
            found = self._take()
        return found

    def close(self) -> None:
        """Nothing is held."""

    def _take(self) -> list[bytes]:
        bodies = []
        while (message := self._wire.take(self._messages)) is not None:
            message.gone = True
            bodies.append(message.body)
        return bodies
