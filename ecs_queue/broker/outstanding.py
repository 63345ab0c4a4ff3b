"""Unacknowledged deliveries, and what their handlers asked for: any thread asks, the consumer's thread acts."""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any


class Request(enum.Enum):
    """What a handler asks the consumer to do with a message."""

    ACK = "acknowledge it"
    REQUEUE = "return it to the end of its queue"
    REQUEUE_AT_FRONT = "return it to the head of its queue"


class OutstandingDelivery:
    """See `Delivery`. Only the first call of `ack` and `requeue*` has an effect."""

    __slots__ = ("_outstanding", "body", "message", "queue", "redelivered")

    def __init__(
        self, outstanding: OutstandingDeliveries, queue: str, body: bytes, redelivered: bool, message: Any
    ) -> None:
        """Create an unacknowledged delivery; the consumer needs `message` to acknowledge it."""
        self._outstanding = outstanding
        self.queue = queue
        self.body = body
        self.redelivered = redelivered
        self.message = message
        outstanding.add(self)

    def ack(self) -> None:
        """See `Delivery.ack`."""
        self._outstanding.request(self, Request.ACK)

    def requeue(self) -> None:
        """See `Delivery.requeue`."""
        self._outstanding.request(self, Request.REQUEUE)

    def requeue_at_front(self) -> None:
        """See `Delivery.requeue_at_front`."""
        self._outstanding.request(self, Request.REQUEUE_AT_FRONT)

    def __repr__(self) -> str:
        """Leave out the body."""
        return f"OutstandingDelivery(queue={self.queue!r})"


class OutstandingDeliveries:
    """The unacknowledged deliveries of one consumer, in the order in which they came. `request` is thread-safe."""

    def __init__(self) -> None:
        self._deliveries: dict[OutstandingDelivery, None] = {}
        self._requests: deque[tuple[OutstandingDelivery, Request]] = deque()  # of any thread
        self._pending: dict[OutstandingDelivery, Request] = {}  # the first one of each delivery
        self._requested = threading.Event()

    def __len__(self) -> int:
        """Return the number of unacknowledged deliveries."""
        return len(self._deliveries)

    def __iter__(self) -> Iterator[OutstandingDelivery]:
        """Iterate over the unacknowledged deliveries, the first one first."""
        return iter(list(self._deliveries))

    def add(self, delivery: OutstandingDelivery) -> None:
        """Add a delivery."""
        self._deliveries[delivery] = None

    def request(self, delivery: OutstandingDelivery, request: Request) -> None:
        """Note what is to become of a delivery. Thread-safe."""
        self._requests.append((delivery, request))
        self._requested.set()

    def wait_for_request(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until something is to be done."""
        self._requested.wait(timeout)

    def pending_requests(self) -> dict[OutstandingDelivery, Request]:
        """Return what is to be done, in the order of the requests. It stays noted until `remove`."""
        self._requested.clear()
        while self._requests:
            delivery, request = self._requests.popleft()
            if delivery in self._deliveries:
                self._pending.setdefault(delivery, request)
        return dict(self._pending)

    def remove(self, deliveries: Iterable[OutstandingDelivery]) -> None:
        """Forget deliveries for which everything was done."""
        for delivery in deliveries:
            self._deliveries.pop(delivery, None)
            self._pending.pop(delivery, None)
