"""Consumes request and result messages over kombu."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import kombu

from ecs_queue.broker import topology
from ecs_queue.broker.base import OnDelivery, OnUndecodable, RequestMessage
from ecs_queue.broker.connection import (
    Receiver,
    SuspendableRoundRobin,
    UndecodableElement,
    close_channel,
    close_connection,
    connect,
    make_queue,
    message_body,
    requeue_at_front,
    wrap_errors,
)
from ecs_queue.broker.redis_channel import BatchFetcher, FetchedMessage, ack_batch, optimize_channel
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import BrokerUnavailable

T = TypeVar("T")

#: Maximum wait for a message while others are unacknowledged: their acknowledgements must not wait. Seconds.
_DRAIN_SECONDS_WHILE_BUSY = 0.02
#: Acknowledgements are sent in batches of this size, or when no message came within a drain.
_ACK_BATCH = 16
#: Maximum acknowledgements per round trip: Lua unpacks at most some 8,000 arguments.
_MAX_ACK_BATCH = 1000
#: Maximum messages of one queue per round trip.
_MAX_FETCH_PER_QUEUE = 16
#: How long the server holds a poll while a queue is suspended: a resumed queue waits for its end. Seconds.
_POLL_SECONDS_WHILE_SUSPENDED = 0.05
#: Maximum results per drain, so that it returns even when results keep coming.
_MAX_RESULTS_PER_DRAIN = 500
#: How long the server holds a poll for results: closing waits for its end. Seconds.
_RESULT_POLL_SECONDS = 0.2


class KombuDelivery:
    """See `Delivery`."""

    __slots__ = ("_consumer", "body", "message", "queue", "redelivered")

    def __init__(self, consumer: KombuRequestConsumer, queue: str, message: Any) -> None:
        self._consumer = consumer
        self.queue = queue
        self.message = message
        self.body = message_body(message)
        self.redelivered = bool((message.headers or {}).get("redelivered"))

    def ack(self) -> None:
        """See `Delivery.ack`. Only the first call of `ack` and `requeue*` has an effect."""
        self._consumer.request_ack(self, None)

    def requeue(self) -> None:
        """See `Delivery.requeue`."""
        self._consumer.request_ack(self, self.message.requeue)

    def requeue_at_front(self) -> None:
        """See `Delivery.requeue_at_front`."""
        self._consumer.request_ack(self, lambda: requeue_at_front(self.message))

    def __repr__(self) -> str:
        """Leave out the body."""
        return f"KombuDelivery(queue={self.queue!r})"


class KombuRequestConsumer:
    """See `RequestConsumer`. Only the draining thread uses kombu's objects."""

    def __init__(
        self,
        connection: Any,
        transport_name: Callable[[str], str],
        queues: Sequence[str],
        prefetch: int,
        on_delivery: OnDelivery,
        on_undecodable: OnUndecodable,
        republish: Callable[[RequestMessage], None],
    ) -> None:
        """Connect; raises kombu's errors. `republish` gets a message that the server has lost."""
        self._connection = connection
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._on_undecodable = on_undecodable
        self._republish = republish
        self._pending_acks: deque[tuple[KombuDelivery, Callable[[], None] | None]] = deque()
        self._ack_requested = threading.Event()
        self._unacked: set[KombuDelivery] = set()
        self._received = 0
        self._closing = False
        connect(connection)
        self._channel = connection.channel()
        optimize_channel(self._channel)
        self._channel.basic_qos(0, prefetch, False)
        wire_names = {transport_name(topology.request_queue_name(queue)): queue for queue in queues}
        self._queue_of = wire_names
        self._transport_name_of = {queue: wire_name for wire_name, queue in wire_names.items()}
        cycle = getattr(self._channel, "_queue_cycle", None)
        self._suspended: set[str] | None = cycle.suspended if isinstance(cycle, SuspendableRoundRobin) else None
        self._poll_seconds = getattr(self._channel, "brpop_timeout", 0.0)
        self._fetcher = BatchFetcher(self._channel) if connection.transport.driver_type == "redis" else None
        self._fetched: deque[FetchedMessage] = deque()
        self._may_be_more = False  # the last drain received messages
        self._consumers = {queue: self._make_consumer(wire_name, queue) for wire_name, queue in wire_names.items()}
        self._receiver = Receiver(connection, self._channel, self._report_undecodable, self._republish_lost)
        for consumer in self._consumers.values():
            consumer.consume()

    def drain(self, timeout: float, limits: Mapping[str, int] | None = None) -> int:
        """See `RequestConsumer.drain`."""
        with wrap_errors(self._connection):
            limits = limits if limits and self._can_fetch_batch else {}
            if self._must_send_acks(limits):
                self._send_acks()
            if len(self._unacked) >= self._prefetch:
                self._ack_requested.wait(timeout)
                self._send_acks()
                return 0
            if len(self._suspended or ()) == len(self._consumers) and not self._channel._in_poll:
                self._send_acks()
                return 0  # kombu would wait nevertheless; but a poll in progress must be read to its end
            before = self._received
            if not self._fetch_batch(limits):
                self._receiver.drain(min(timeout, _DRAIN_SECONDS_WHILE_BUSY) if self._unacked else timeout)
            received = self._received - before
            self._may_be_more = bool(received)
            if not received:
                self._send_acks()
            return received

    def suspend(self, queue: str) -> None:
        """See `RequestConsumer.suspend`."""
        if self._suspended is not None:
            self._suspended.add(self._transport_name_of[queue])
            self._channel.brpop_timeout = min(self._poll_seconds, _POLL_SECONDS_WHILE_SUSPENDED)
            return
        with wrap_errors(self._connection):
            self._consumers[queue].cancel()

    def resume(self, queue: str) -> None:
        """See `RequestConsumer.resume`."""
        if self._suspended is not None:
            self._suspended.discard(self._transport_name_of[queue])
            self._may_be_more = True
            if not self._suspended:
                self._channel.brpop_timeout = self._poll_seconds
            return
        with wrap_errors(self._connection):
            self._consumers[queue].consume()

    def restore_expired(self) -> None:
        """See `RequestConsumer.restore_expired`."""
        restore = getattr(self._channel.qos, "restore_visible", None)
        if restore is not None:
            with wrap_errors(self._connection):
                restore(num=topology.RESTORE_LIMIT, interval=1)

    def request_ack(self, delivery: KombuDelivery, requeue: Callable[[], None] | None) -> None:
        """Acknowledge, or run `requeue`, with the next drain. Thread-safe."""
        self._pending_acks.append((delivery, requeue))
        self._ack_requested.set()

    def close(self) -> None:
        """See `RequestConsumer.close`."""
        self._closing = True
        crash_point("broker.closing")
        with suppress(BrokerUnavailable), wrap_errors(self._connection):
            self._send_acks()
            if not self._channel.do_restore:  # other channels of kombu requeue their messages when they are closed
                for delivery in self._unacked:
                    delivery.message.requeue()
        # Before the connection, which drops its channels first and then the message of a suspended queue's last poll.
        close_channel(self._channel)
        self._unacked.clear()
        close_connection(self._connection)

    def _must_send_acks(self, limits: Mapping[str, int]) -> bool:
        """Whether to send acknowledgements before the next receive: the prefetch limit is reached, or a batch is full
        and will not go with the next fetch."""
        if len(self._unacked) >= self._prefetch:
            return True
        return len(self._pending_acks) >= _ACK_BATCH and not (limits and self._pending_acks[0][1] is None)

    @property
    def _can_fetch_batch(self) -> bool:
        """Whether the next messages can be fetched in a batch: there is a backlog, and no poll in progress."""
        return self._may_be_more and not (self._fetcher is None or self._fetched or self._channel._in_poll)

    def _fetch_batch(self, limits: Mapping[str, int]) -> bool:
        """Fetch several messages at once where possible, and deliver them. Return whether there were any."""
        if self._fetcher is not None and limits:
            self._fetched.extend(self._send_ack_batch(partial(self._fetcher.fetch, self._fetch_limits(limits))))
            if self._fetched:
                crash_point("broker.fetched")
        found = bool(self._fetched)
        while self._fetched:
            message = self._fetched.popleft()
            self._channel._queue_cycle.rotate(message.queue)
            self._receiver.deliver_element(message.queue, message.element)
            if message.tag in self._channel.qos.fetched_tags:  # it was undecodable
                self._channel.qos.fetched_tags.discard(message.tag)
                self._channel.qos.ack(message.tag)
        return found

    def _fetch_limits(self, limits: Mapping[str, int]) -> dict[str, int]:
        """The limits by the transport's names, within the prefetch limit; each queue is first in turn."""
        left = self._prefetch - len(self._unacked)
        fetch_limits = {}
        for wire_name in self._channel._queue_cycle.consume(len(self._consumers)):
            number = min(left, _MAX_FETCH_PER_QUEUE, limits.get(self._queue_of[wire_name], 0))
            if number > 0:
                fetch_limits[wire_name] = number
                left -= number
        return fetch_limits

    def _make_consumer(self, transport_name: str, queue: str) -> Any:
        def received(message: Any) -> None:
            if self._closing:
                return  # received while the connection closes, which requeues it
            try:
                delivery = KombuDelivery(self, queue, message)
            except (TypeError, ValueError) as error:
                message.ack()  # otherwise it would be delivered again for ever
                raise UndecodableElement(str(error)) from error
            self._received += 1
            self._unacked.add(delivery)
            self._on_delivery(delivery)

        def undecodable(message: Any, error: Exception) -> None:
            if not message.acknowledged:  # kombu calls this again with the error that it raises
                message.ack()
            raise UndecodableElement(type(error).__name__) from error

        return kombu.Consumer(
            self._channel, [make_queue(transport_name)], on_message=received, on_decode_error=undecodable
        )

    def _send_acks(self) -> None:
        """Send the requested acknowledgements and requeues in order, consecutive acknowledgements in one batch."""
        self._ack_requested.clear()
        while self._pending_acks:
            if self._pending_acks[0][1] is None:
                self._send_ack_batch(ack_batch)
                continue
            delivery, requeue = self._pending_acks[0]
            if requeue is not None and delivery in self._unacked:
                crash_point("broker.requeueing")
                requeue()
                crash_point("broker.requeued")
                self._unacked.discard(delivery)
            self._pending_acks.popleft()

    def _send_ack_batch(self, send: Callable[[list[Any]], T]) -> T:
        """Pass the next consecutive acknowledgements to `send`, and return its result."""
        batch: list[KombuDelivery] = []
        while self._pending_acks and self._pending_acks[0][1] is None and len(batch) < _MAX_ACK_BATCH:
            batch.append(self._pending_acks.popleft()[0])
        try:
            if batch:
                crash_point("broker.acking")
            result = send([delivery.message for delivery in batch if delivery in self._unacked])
            if batch:
                crash_point("broker.acked")
        except BaseException:
            self._pending_acks.extendleft((delivery, None) for delivery in reversed(batch))
            raise
        self._unacked.difference_update(batch)
        return result

    def _republish_lost(self, transport_name: str, message: Mapping[str, Any]) -> None:
        properties = message["properties"]
        encoding, body = properties.get("body_encoding"), message["body"]
        codec = self._channel.codecs.get(encoding)
        decoded = codec.decode(body) if codec else body
        priority = properties.get("priority")
        if not isinstance(priority, int) or not topology.LOWEST_PRIORITY <= priority <= topology.HIGHEST_PRIORITY:
            priority = topology.LOWEST_PRIORITY
        priority = topology.transport_priority(priority, self._connection.transport.driver_type)  # its own inverse
        raw = decoded.encode() if isinstance(decoded, str) else bytes(decoded)
        self._republish(RequestMessage(self._queue_of.get(transport_name, transport_name), raw, priority))

    def _report_undecodable(self, transport_name: str, raw: bytes, reason: str) -> None:
        self._on_undecodable(self._queue_of.get(transport_name, transport_name), raw, reason)


class KombuResultConsumer:
    """See `ResultConsumer`. Connects with the first drain, and again after an error."""

    def __init__(self, make_connection: Callable[[], Any], queue_name: str) -> None:
        self._make_connection = make_connection
        self._queue_name = queue_name
        self._connection: Any = None
        self._channel: Any = None
        self._receiver: Receiver | None = None
        self._bodies: list[bytes] = []

    def drain(self, timeout: float) -> list[bytes]:
        """See `ResultConsumer.drain`. Returns at most some hundreds; drops elements that are not messages."""
        if self._connection is None:
            self._connection = self._make_connection()
        try:
            with wrap_errors(self._connection):
                self._receive(self._receiver or self._connect(), timeout)
        except BrokerUnavailable:
            self.close()
            raise
        bodies, self._bodies = self._bodies, []
        return bodies

    def close(self) -> None:
        """See `ResultConsumer.close`."""
        connection, self._connection, self._channel, self._receiver = self._connection, None, None, None
        if connection is not None:
            close_connection(connection)

    def _connect(self) -> Receiver:
        self._connection.transport.brpop_timeout = _RESULT_POLL_SECONDS
        connect(self._connection)
        channel = self._connection.channel()
        if hasattr(channel.qos, "restore_visible"):
            # Otherwise kombu's first poll requeues workers' messages by this process's visibility timeout, and with
            # rights on the server that a client need not have.
            channel.qos.restore_visible = lambda **_: None
        self._channel = channel
        self._receiver = Receiver(
            self._connection, channel, lambda _name, _raw, _reason: None, lambda _name, _message: None
        )
        kombu.Consumer(
            channel,
            [make_queue(self._queue_name, topology.RESULT_QUEUE_EXPIRY_SECONDS)],
            on_message=self._on_message,
            on_decode_error=self._on_undecodable,
            no_ack=True,
        ).consume()
        return self._receiver

    def _on_undecodable(self, _message: Any, error: Exception) -> None:
        raise UndecodableElement(type(error).__name__) from error

    def _on_message(self, message: Any) -> None:
        try:
            self._bodies.append(message_body(message))
        except (TypeError, ValueError) as error:
            raise UndecodableElement(str(error)) from error

    def _receive(self, receiver: Receiver, timeout: float) -> None:
        """Wait for the first message with kombu; on Redis get the others in one round trip."""
        deadline = time.monotonic() + timeout
        found = receiver.drain(timeout)
        if found and self._connection.transport.driver_type == "redis":
            self._receive_rest(receiver)
            return
        while found and len(self._bodies) < _MAX_RESULTS_PER_DRAIN and time.monotonic() < deadline:
            found = receiver.drain(0.001)

    def _receive_rest(self, receiver: Receiver) -> None:
        with self._channel.conn_or_acquire() as client:
            # All results have the same priority.
            elements = client.rpop(self._queue_name, _MAX_RESULTS_PER_DRAIN - 1)
        for element in elements or ():
            receiver.deliver_element(self._queue_name, element)
