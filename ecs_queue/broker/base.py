"""The broker's protocol. Messages may be lost, duplicated, delayed and reordered.

No message is the only copy of a fact: the sweeper finds a request whose message was lost, and its owner polls the
ledger for a result whose message was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec


class RequestMessage(msgspec.Struct, frozen=True):
    """A request message to publish: the queue's name, the envelope's JSON, and its priority (0 to 9, 9 first)."""

    queue: str
    body: bytes
    priority: int = 0

    def __repr__(self) -> str:
        """Leave out the body: commands and environments hold secrets."""
        return f"RequestMessage(queue={self.queue!r}, priority={self.priority})"


class Delivery(Protocol):
    """An unacknowledged message. After the visibility timeout the broker delivers it again.

    `ack` and `requeue*` may be called from any thread; the consumer's thread sends them.
    """

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        ...

    @property
    def body(self) -> bytes:
        """The envelope as published."""
        ...

    @property
    def redelivered(self) -> bool:
        """Whether another consumer got it before and requeued it or died. False if the transport does not know."""
        ...

    def ack(self) -> None:
        """Acknowledge the message."""
        ...

    def requeue(self) -> None:
        """Return it to the end of its queue."""
        ...

    def requeue_at_front(self) -> None:
        """Return it to the head of its queue; to the end if the transport cannot do that."""
        ...


OnDelivery = Callable[[Delivery], None]
#: Gets (queue, raw bytes, reason) of an element that is not a message.
OnUndecodable = Callable[[str, bytes, str], None]


class RequestConsumer(Protocol):
    """Consumes request messages. Used by one thread, except for the methods of `Delivery`.

    Raises:
        BrokerUnavailable: from every method except `close`.
    """

    def drain(self, timeout: float, limits: Mapping[str, int] | None = None) -> int:
        """Deliver the messages that arrive within `timeout` seconds, up to the prefetch limit. Return their number.

        Args:
            timeout: maximum wait in seconds.
            limits: maximum number of messages of each queue, none of other queues; None delivers one message.
        """
        ...

    def suspend(self, queue: str) -> None:
        """Stop consuming this queue; a message in transit may still be delivered."""
        ...

    def resume(self, queue: str) -> None:
        """Consume this queue again."""
        ...

    def restore_expired(self) -> bool:
        """Return other consumers' messages whose visibility timeout is over to the heads of their queues, in order.

        Returns:
            Whether some are left for the next call: one call handles a bounded number.
        """
        ...

    def close(self) -> None:
        """Requeue the unacknowledged messages and close the connection."""
        ...


class ResultConsumer(Protocol):
    """Consumes the result messages of one owner. Used by one thread at a time."""

    def drain(self, timeout: float) -> list[bytes]:
        """Return the bodies that are there or arrive within `timeout` seconds; below 0.1 it may only look."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Broker(Protocol):
    """Publishes and consumes messages. It connects when first used; publishing is thread-safe.

    Raises:
        BrokerUnavailable: from every method except `close`.
    """

    def publish_requests(self, messages: Sequence[RequestMessage]) -> None:
        """Publish the messages, in batches where the transport can.

        Not atomic: after an error any part of them may have been published.
        """
        ...

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish (owner, body) pairs to each owner's result queue."""
        ...

    def consume_requests(
        self, queues: Sequence[str], prefetch: int, on_delivery: OnDelivery, on_undecodable: OnUndecodable
    ) -> RequestConsumer:
        """Return a connected consumer. Call it on the thread that will drain it."""
        ...

    def consume_results(self, owner: str) -> ResultConsumer:
        """Return a consumer of the owner's result queue."""
        ...

    def delete_result_queue(self, owner: str) -> None:
        """Delete the result queue of an owner that will not drain it again."""
        ...

    def backlog(self, queue: str) -> int:
        """Return the number of request messages in the queue."""
        ...

    def check(self, queues: Sequence[str] = (), *, may_create: bool = True) -> None:
        """Check that the broker can be reached, and that these queues can be used; make those that do not exist.

        Args:
            queues: Request queues.
            may_create: False to leave out those that do not exist.

        Raises:
            UnusableServer: A queue exists and is not as it must be.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
