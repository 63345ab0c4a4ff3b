"""What a broker must do. Delivery is at most a hint: messages may be lost, doubled, delayed and reordered.

Nothing here is the only copy of a fact: a lost request message is found by the sweep of the ledger, a lost result
message by its owner's look into the ledger. Every method may raise `BrokerUnavailable`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec


class RequestMessage(msgspec.Struct, frozen=True):
    """A request message on its way: the queue's name, the envelope's JSON, and its priority (0 to 9, 9 first)."""

    queue: str
    body: bytes
    priority: int = 0

    def __repr__(self) -> str:
        """Without the body: commands and environments hold secrets."""
        return f"Outgoing(queue={self.queue!r}, priority={self.priority})"


class Delivery(Protocol):
    """One message in hand. Until it is acknowledged the broker gives it to somebody else after a while."""

    @property
    def queue(self) -> str:
        """The queue it came from."""
        ...

    @property
    def body(self) -> bytes:
        """The envelope as published."""
        ...

    @property
    def redelivered(self) -> bool:
        """Whether somebody had it in hand before and gave it back, or died. False where the transport cannot tell."""
        ...

    def ack(self) -> None:
        """It is dealt with. From any thread; carried out by the consumer's own."""
        ...

    def requeue(self) -> None:
        """Give it back to its queue, behind the others. From any thread; carried out by the consumer's own."""
        ...

    def requeue_at_front(self) -> None:
        """Give it back untouched: where the transport can, it is the next one again. From any thread, likewise."""
        ...


OnDelivery = Callable[[Delivery], None]
#: (queue, raw bytes, reason) of an element that is no message at all.
OnUndecodable = Callable[[str, bytes, str], None]


class RequestConsumer(Protocol):
    """Takes request messages. Used by one thread, but for `Delivery.ack`."""

    def drain(self, timeout: float, limits: Mapping[str, int] | None = None) -> int:
        """Hand over what arrives within `timeout` seconds, at most as much as there are free slots; how many.

        `most`: so many of each queue may come at once, of others none; None: one message.
        """
        ...

    def pause(self, queue: str) -> None:
        """Take nothing more from this queue; a message that is on its way may still come."""
        ...

    def resume(self, queue: str) -> None:
        """Take from this queue again."""
        ...

    def restore_expired(self) -> None:
        """Give messages that other consumers took and never acknowledged back to their queues."""
        ...

    def close(self) -> None:
        """Give back what is in hand and not acknowledged."""
        ...


class ResultConsumer(Protocol):
    """Takes the result messages of one owner. One thread at a time."""

    def drain(self, timeout: float) -> list[bytes]:
        """Bodies that are there or arrive within `timeout` seconds; empty when none does."""
        ...

    def close(self) -> None:
        """No more."""
        ...


class Broker(Protocol):
    """Connections are made when first needed. Publishing is thread-safe."""

    def publish_requests(self, messages: Sequence[RequestMessage]) -> None:
        """Publish, in one batch where the transport can. Not atomic: on an error any part may have gone out."""
        ...

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """(owner, body) pairs, to each owner's queue of results."""
        ...

    def consume_requests(
        self, queues: Sequence[str], prefetch: int, on_delivery: OnDelivery, on_undecodable: OnUndecodable
    ) -> RequestConsumer:
        """A consumer, connected. Call it on the thread that will drain it."""
        ...

    def consume_results(self, owner: str) -> ResultConsumer:
        """The owner's inbox."""
        ...

    def delete_result_queue(self, owner: str) -> None:
        """Delete the owner's queue of results: nobody will drain it again."""
        ...

    def backlog(self, queue: str) -> int:
        """How many request messages wait in the queue."""
        ...

    def check(self) -> None:
        """Raises `BrokerUnavailable` when the broker cannot be reached."""
        ...

    def close(self) -> None:
        """Give the connections back."""
        ...
