"""Consumes request and result messages through kombu's public interface, one by one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import kombu

from ecs_queue.broker.base import OnDelivery, OnUndecodable
from ecs_queue.broker.element import find_header_problem, find_size_problem
from ecs_queue.broker.failures import CONNECTION_ERRORS, wrap_declaration_errors, wrap_errors
from ecs_queue.broker.outstanding import OutstandingDeliveries, OutstandingDelivery, Request

#: Maximum wait for a message while others are unacknowledged: their acknowledgements must not wait. Seconds.
_DRAIN_SECONDS_WHILE_BUSY = 0.02
#: Maximum results per drain, so that it returns even when results keep coming.
_MAX_RESULTS_PER_DRAIN = 500


def make_queue(name: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """Return a durable queue on the default exchange, which needs no binding."""
    return kombu.Queue(name, exchange="", routing_key=name, durable=True, queue_arguments=dict(arguments or {}))


@cache
def leave_compressed(message_class: Any) -> Any:
    """Return a class like kombu's `message_class`, whose messages keep their body as it came.

    kombu decompresses a body while it builds the message, before our code can check size and signature. A message with
    an error is not decoded; this one has an error while it is made.
    """

    class CompressedMessage(message_class):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.errors = [None]
            super().__init__(*arguments, **options)
            self.errors.clear()

    return CompressedMessage


def open_channel(connection: Any) -> Any:
    """Connect and return a channel. One attempt only: between several, kombu sleeps for seconds."""
    connection.ensure_connection(max_retries=0)
    channel = connection.channel()
    channel.auto_decode = False  # of AMQP: bodies as they came, whatever they say of their encoding
    channel.Message = leave_compressed(channel.Message)
    return channel


def drop_connection(connection: Any) -> None:
    """Close a connection that failed without sending anything: the server might not answer."""
    with suppress(*CONNECTION_ERRORS), wrap_errors(connection):
        connection.collect()


def read_body(message: Any) -> bytes:
    """Return the body of a message, as it came."""
    body = message.body
    return body.encode(errors="surrogatepass") if isinstance(body, str) else bytes(body or b"")


def find_problem(message: Any, max_bytes: int) -> str:
    """Return why a message is refused; "" when it is not."""
    size = len(message.body or b"")
    return find_size_problem(size, max_bytes) or find_header_problem(message.headers or {})


class KombuRequestConsumer:
    """See `RequestConsumer`. Only the draining thread uses kombu's objects."""

    def __init__(
        self,
        connection: Any,
        queues: Mapping[str, Sequence[Any]],
        prefetch: int,
        max_message_bytes: int,
        on_delivery: OnDelivery,
        on_undecodable: OnUndecodable,
    ) -> None:
        """Connect; raises kombu's errors. `queues` has the transport's queues for each of ours."""
        self._connection = connection
        self._prefetch = prefetch
        self._max_message_bytes = max_message_bytes
        self._on_delivery = on_delivery
        self._on_undecodable = on_undecodable
        self._has_failed = False
        self._outstanding = OutstandingDeliveries()
        self._received: deque[tuple[str, Any]] = deque()  # and not delivered yet
        self._channel = open_channel(connection)
        self._channel.basic_qos(0, prefetch, False)
        self._consumers = {queue: self._make_consumer(queue, declared) for queue, declared in queues.items()}
        self._suspended: set[str] = set()
        for consumer in self._consumers.values():
            consumer.consume()

    def drain(self, timeout: float, limits: Mapping[str, int] | None = None) -> int:
        """See `RequestConsumer.drain`. The limits are one for all queues together."""
        with self._wrap_errors():
            self._connection.heartbeat_check()
            self._send_requests()
            if self._is_full:
                self._outstanding.wait_for_request(timeout)
                self._send_requests()
                self._read(0)  # the server's heartbeats, too
                return 0
            delivered = self._deliver()
            maximum = max(1, sum(max(0, number) for number in (limits or {}).values()))
            if len(self._suspended) == len(self._consumers):
                timeout = 0
            while not self._is_full and delivered < maximum:
                if not self._read(0 if delivered else _bounded(timeout, self._outstanding)):
                    break
                delivered += self._deliver()
            return delivered

    def suspend(self, queue: str) -> None:
        """See `RequestConsumer.suspend`."""
        self._suspended.add(queue)
        with self._wrap_errors():
            self._consumers[queue].cancel()

    def resume(self, queue: str) -> None:
        """See `RequestConsumer.resume`."""
        self._suspended.discard(queue)
        with self._wrap_errors():
            self._consumers[queue].consume()

    def restore_expired(self) -> bool:
        """See `RequestConsumer.restore_expired`. The transport does that by itself."""
        return False

    def close(self) -> None:
        """See `RequestConsumer.close`. After an error the server returns the messages by itself."""
        if not self._has_failed:
            with suppress(*CONNECTION_ERRORS), self._wrap_errors():
                self._send_requests()
                for message in (*(one.message for one in self._outstanding), *(one for _, one in self._received)):
                    message.requeue()
                self._connection.release()
        if self._has_failed:
            drop_connection(self._connection)
        self._outstanding.remove(self._outstanding)
        self._received.clear()

    @contextmanager
    def _wrap_errors(self) -> Iterator[None]:
        try:
            with wrap_errors(self._connection):
                yield
        except CONNECTION_ERRORS:
            self._has_failed = True
            raise

    def _make_consumer(self, queue: str, declared: Sequence[Any]) -> Any:
        def received(message: Any) -> None:
            if problem := find_problem(message, self._max_message_bytes):
                self._on_undecodable(queue, read_body(message)[: self._max_message_bytes], problem)
                message.ack()
            else:
                self._received.append((queue, message))

        for one in declared:
            with wrap_declaration_errors(self._connection, one.name):
                one(self._channel).declare()
        return kombu.Consumer(self._channel, declared, on_message=received, auto_declare=False)

    @property
    def _is_full(self) -> bool:
        return len(self._outstanding) >= self._prefetch

    def _read(self, timeout: float) -> bool:
        """Read one event of the server; return False when none came within `timeout` seconds."""
        try:
            self._connection.drain_events(timeout=timeout)
        except TimeoutError:
            return False
        return True

    def _deliver(self) -> int:
        """Deliver what was received, as far as the prefetch limit allows; RabbitMQ's is one of each queue."""
        delivered = 0
        while self._received and not self._is_full:
            queue, message = self._received.popleft()
            is_redelivered = bool((message.delivery_info or {}).get("redelivered"))
            delivery = OutstandingDelivery(self._outstanding, queue, read_body(message), is_redelivered, message)
            self._on_delivery(delivery)
            delivered += 1
        return delivered

    def _send_requests(self) -> None:
        for delivery, request in self._outstanding.pending_requests().items():
            # No transport can return a message to the head of its queue through kombu's interface.
            send = delivery.message.ack if request is Request.ACK else delivery.message.requeue
            send()
            self._outstanding.remove([delivery])


class KombuResultConsumer:
    """See `ResultConsumer`. Connects with the first drain, and again after an error."""

    def __init__(self, make_connection: Callable[[], Any], queue: Any, max_message_bytes: int) -> None:
        self._make_connection = make_connection
        self._queue = queue
        self._max_message_bytes = max_message_bytes
        self._connection: Any = None
        self._bodies: list[bytes] = []

    def drain(self, timeout: float) -> list[bytes]:
        """See `ResultConsumer.drain`. Returns at most some hundreds; drops what cannot be a result."""
        is_new, self._connection = self._connection is None, self._connection or self._make_connection()
        try:
            with wrap_errors(self._connection):
                if is_new:
                    self._consume()
                self._connection.heartbeat_check()
                self._receive(timeout)
        except CONNECTION_ERRORS:
            drop_connection(self._connection)
            self._connection = None
            raise
        bodies, self._bodies = self._bodies, []
        return bodies

    def close(self) -> None:
        """See `ResultConsumer.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*CONNECTION_ERRORS), wrap_errors(connection):
                connection.release()

    def _consume(self) -> None:
        channel = open_channel(self._connection)
        kombu.Consumer(channel, [self._queue], on_message=self._on_message, no_ack=True).consume()

    def _on_message(self, message: Any) -> None:
        if not find_problem(message, self._max_message_bytes):
            self._bodies.append(read_body(message))

    def _receive(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with suppress(TimeoutError):
            self._connection.drain_events(timeout=timeout)
            while len(self._bodies) < _MAX_RESULTS_PER_DRAIN and time.monotonic() < deadline:
                self._connection.drain_events(timeout=0.001)


def _bounded(timeout: float, outstanding: OutstandingDeliveries) -> float:
    return min(timeout, _DRAIN_SECONDS_WHILE_BUSY) if outstanding else timeout
