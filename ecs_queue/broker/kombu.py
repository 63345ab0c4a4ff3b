"""The broker over kombu's own transports, through kombu's public interface: `memory://`, within one process.

`broker/amqp.py` has what differs with RabbitMQ.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import kombu

from ecs_queue.broker import topology
from ecs_queue.broker.base import OnDelivery, OnUndecodable, RequestMessage
from ecs_queue.broker.failures import CONNECTION_ERRORS, unusable_is_unavailable, wrap_errors
from ecs_queue.broker.kombu_consumer import KombuRequestConsumer, KombuResultConsumer, drop_connection, make_queue
from ecs_queue.errors import BrokerUnavailable

T = TypeVar("T")

#: An action that failed after this share of the socket's time-out has timed out.
_TIMED_OUT_SHARE = 0.9


class KombuBroker:
    """A `Broker`. It has one connection to publish; each consumer has its own connection."""

    def __init__(
        self,
        url: str,
        namespace: str,
        *,
        visibility_timeout: float,
        socket_timeout: float,
        max_message_bytes: int = topology.MAX_MESSAGE_BYTES,
    ) -> None:
        """See `Config` for the numbers."""
        self._url = url
        self._namespace = namespace
        self._options = {"polling_interval": 0.01, "visibility_timeout": visibility_timeout}
        self._socket_timeout = socket_timeout
        self._max_message_bytes = max_message_bytes
        self._lock = threading.Lock()
        self._publisher: Any = None

    def __repr__(self) -> str:
        """Leave out the URL: it may hold a password."""
        return f"{type(self).__name__}(namespace={self._namespace!r})"

    def publish_requests(self, messages: Sequence[RequestMessage]) -> None:
        """See `Broker.publish_requests`."""
        self._publish([(topology.request_queue_name(one.queue), one.priority, one.body) for one in messages])

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Broker.publish_results`."""
        self._publish([(topology.result_queue_name(owner), 0, body) for owner, body in messages])

    def consume_requests(
        self, queues: Sequence[str], prefetch: int, on_delivery: OnDelivery, on_undecodable: OnUndecodable
    ) -> KombuRequestConsumer:
        """See `Broker.consume_requests`."""
        declared = {queue: self._request_queues(queue) for queue in queues}
        connection = self._make_connection(is_drained=True)
        try:
            with wrap_errors(connection), unusable_is_unavailable():
                return KombuRequestConsumer(
                    connection, declared, prefetch, self._max_message_bytes, on_delivery, on_undecodable
                )
        except BaseException:
            drop_connection(connection)
            raise

    def consume_results(self, owner: str) -> KombuResultConsumer:
        """See `Broker.consume_results`."""
        make_connection = partial(self._make_connection, is_drained=True)
        return KombuResultConsumer(make_connection, self._result_queue(owner), self._max_message_bytes)

    def delete_result_queue(self, owner: str) -> None:
        """See `Broker.delete_result_queue`."""
        queue = self._result_queue(owner)
        self._with_publisher(lambda connection: queue(connection.default_channel).purge())

    def backlog(self, queue: str) -> int:
        """See `Broker.backlog`."""
        (declared,) = self._request_queues(queue)
        return int(
            self._with_publisher(lambda connection: declared(connection.default_channel).queue_declare().message_count)
        )

    def check(self, queues: Sequence[str] = (), *, may_create: bool = True) -> None:  # noqa: ARG002 - any is usable
        """See `Broker.check`."""
        self._with_publisher(lambda connection: connection.default_channel)

    def close(self) -> None:
        """See `Broker.close`."""
        with self._lock:
            self._close_publisher()

    def _name(self, name: str) -> str:
        """Prefix the namespace: all programs on a server share one set of queue names."""
        return f"{self._namespace}.{name}"

    def _request_queues(self, queue: str) -> list[Any]:
        """Return the transport's queues of a request queue."""
        return [make_queue(self._name(topology.request_queue_name(queue)))]

    def _result_queue(self, owner: str) -> Any:
        return make_queue(self._name(topology.result_queue_name(owner)))

    def _make_connection(self, *, is_drained: bool = False) -> Any:  # noqa: ARG002 - for transports with heartbeats
        return kombu.Connection(self._url, transport_options=self._options, connect_timeout=self._socket_timeout)

    def _publish(self, messages: Sequence[tuple[str, int, bytes]]) -> None:
        def publish(connection: Any) -> None:
            producer = kombu.Producer(connection.default_channel)
            for name, priority, body in messages:
                producer.publish(
                    body,
                    exchange="",
                    routing_key=self._name(name),
                    priority=priority,
                    content_type="application/json",
                    content_encoding="utf-8",
                )

        self._with_publisher(publish)

    def _with_publisher(self, action: Callable[[Any], T]) -> T:
        """Run an action on the shared connection. If it died while idle, connect again and try once more."""
        with self._lock:
            was_idle, began = self._publisher is not None, time.monotonic()
            try:
                return self._try_with_publisher(action)
            except BrokerUnavailable:
                # A dead connection fails at once. After a time-out the caller has waited long enough.
                if not was_idle or time.monotonic() - began >= _TIMED_OUT_SHARE * self._socket_timeout:
                    raise
            return self._try_with_publisher(action)

    def _try_with_publisher(self, action: Callable[[Any], T]) -> T:
        if self._publisher is None:
            self._publisher = self._make_connection()
        try:
            with wrap_errors(self._publisher):
                self._publisher.ensure_connection(max_retries=0)
                return action(self._publisher)
        except BaseException:  # kombu's state is unknown after any error
            drop_connection(self._publisher)
            self._publisher = None
            raise

    def _close_publisher(self) -> None:
        if self._publisher is not None:
            with suppress(*CONNECTION_ERRORS), wrap_errors(self._publisher):
                self._publisher.release()
            self._publisher = None
