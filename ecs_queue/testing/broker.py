"""A broker in memory, of one process."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ecs_queue.broker.base import OnDelivery, OnUndecodable, RequestConsumer, RequestMessage, ResultConsumer
from ecs_queue.errors import UsageError


class MemoryDelivery:
    """A `Delivery` of a message; it is returned to its queue unless it is acknowledged."""

    redelivered = False

    def __init__(self, message: RequestMessage, messages: deque[RequestMessage]) -> None:
        """Deliver the message, which may be returned to `messages`."""
        self._message = message
        self._messages = messages
        self.queue = message.queue
        self.body = message.body

    def ack(self) -> None:
        """See `Delivery`."""

    def requeue(self) -> None:
        """See `Delivery`."""
        self._messages.append(self._message)

    def requeue_at_front(self) -> None:
        """See `Delivery`."""
        self._messages.appendleft(self._message)


class MemoryBroker:
    """A `Broker` whose messages the `MemoryQueue` takes itself. Results need no messages there."""

    def __init__(self) -> None:
        """Start empty."""
        self._messages: deque[RequestMessage] = deque()

    def publish_requests(self, messages: Sequence[RequestMessage]) -> None:
        """See `Broker`."""
        self._messages.extend(messages)

    def take(self) -> list[MemoryDelivery]:
        """Take all messages: those with a higher priority first, otherwise in the order of their publication."""
        taken = sorted(self._messages, key=lambda message: -message.priority)
        self._messages.clear()
        return [MemoryDelivery(message, self._messages) for message in taken]

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Broker`. The client reads its ledger."""

    def consume_requests(
        self, queues: Sequence[str], prefetch: int, on_delivery: OnDelivery, on_undecodable: OnUndecodable
    ) -> RequestConsumer:
        """See `Broker`."""
        raise UsageError("the requests of a MemoryQueue are consumed by its own worker: call run() or advance()")

    def consume_results(self, owner: str) -> ResultConsumer:
        """See `Broker`."""
        raise UsageError("a MemoryQueue delivers its results itself")

    def delete_result_queue(self, owner: str) -> None:
        """See `Broker`."""

    def backlog(self, queue: str) -> int:
        """See `Broker`."""
        return sum(message.queue == queue for message in self._messages)

    def check(self, queues: Sequence[str] = (), *, may_create: bool = True) -> None:
        """See `Broker`."""

    def close(self) -> None:
        """See `Broker`."""
