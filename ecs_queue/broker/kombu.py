"""The broker over kombu: `redis://`, `rediss://` and, within one process, `memory://`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import kombu

from ecs_queue.broker import topology
from ecs_queue.broker.base import OnDelivery, OnUndecodable, RequestMessage
from ecs_queue.broker.connection import SuspendableRoundRobin, close_connection, connect, wrap_errors, wrap_url_errors
from ecs_queue.broker.consumer import KombuRequestConsumer, KombuResultConsumer
from ecs_queue.broker.publisher import Publisher
from ecs_queue.errors import BrokerUnavailable

T = TypeVar("T")


class KombuBroker:
    """A `Broker`. It has one connection to publish; each consumer has its own connection."""

    def __init__(self, url: str, namespace: str, *, visibility_timeout: float, socket_timeout: float) -> None:
        self._url = url
        self._namespace = namespace
        self._visibility_timeout = visibility_timeout
        self._socket_timeout = socket_timeout
        self._lock = threading.Lock()
        self._publisher: Publisher | None = None
        self._to_republish: deque[RequestMessage] = deque()

    def __repr__(self) -> str:
        """Leave out the URL: it may hold a password."""
        return f"KombuBroker(namespace={self._namespace!r})"

    def publish_requests(self, messages: Sequence[RequestMessage]) -> None:
        """See `Broker.publish_requests`."""
        self._with_publisher(lambda publisher: publisher.publish_requests(messages))

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Broker.publish_results`."""
        self._with_publisher(lambda publisher: publisher.publish_results(messages))

    def consume_requests(
        self, queues: Sequence[str], prefetch: int, on_delivery: OnDelivery, on_undecodable: OnUndecodable
    ) -> KombuRequestConsumer:
        """See `Broker.consume_requests`.

        First it publishes the messages again that only this process has. While that fails, no messages are consumed,
        because they would be lost too.
        """
        while self._to_republish:
            self.publish_requests([self._to_republish[0]])
            self._to_republish.popleft()
        connection = self._make_connection()
        try:
            with wrap_errors(connection):
                return KombuRequestConsumer(
                    connection,
                    self._transport_name,
                    queues,
                    prefetch,
                    on_delivery,
                    on_undecodable,
                    self._to_republish.append,
                )
        except BaseException:
            close_connection(connection)
            raise

    def consume_results(self, owner: str) -> KombuResultConsumer:
        """See `Broker.consume_results`."""
        return KombuResultConsumer(self._make_connection, self._transport_name(topology.result_queue_name(owner)))

    def delete_result_queue(self, owner: str) -> None:
        """See `Broker.delete_result_queue`."""
        name = self._transport_name(topology.result_queue_name(owner))
        # Not queue_delete: kombu finds the lists to delete by bindings, which the default exchange has not.
        self._with_publisher(lambda publisher: publisher.channel.queue_purge(name))

    def backlog(self, queue: str) -> int:
        """See `Broker.backlog`."""
        name = self._transport_name(topology.request_queue_name(queue))
        return int(self._with_publisher(lambda publisher: publisher.channel._size(name)))

    def check(self) -> None:
        """See `Broker.check`."""
        connection = self._make_connection()
        try:
            with wrap_errors(connection):
                connect(connection)
                with wrap_url_errors():
                    if connection.transport.driver_type == "redis":
                        connection.default_channel.client.ping()
        finally:
            close_connection(connection)

    def close(self) -> None:
        """See `Broker.close`."""
        with self._lock:
            self._close_publisher()

    def _transport_name(self, name: str) -> str:
        """kombu prefixes Redis keys; other transports share one namespace."""
        return f"{self._namespace}.{name}" if self._url.startswith("memory:") else name

    def _make_connection(self) -> Any:
        if self._url.startswith("memory:"):
            return kombu.Connection(self._url, transport_options={"polling_interval": 0.01})
        options = topology.transport_options(self._namespace, self._visibility_timeout, self._socket_timeout)
        options["queue_order_strategy"] = SuspendableRoundRobin
        with wrap_url_errors():
            return kombu.Connection(self._url, transport_options=options)

    def _with_publisher(self, action: Callable[[Publisher], T]) -> T:
        """Run an action on the shared publisher; replace a connection that died while it was idle once."""
        with self._lock:
            was_idle = self._publisher is not None
            try:
                return self._try_with_publisher(action)
            except BrokerUnavailable:
                if not was_idle:
                    raise
            return self._try_with_publisher(action)

    def _try_with_publisher(self, action: Callable[[Publisher], T]) -> T:
        if self._publisher is None:
            self._publisher = Publisher(self._make_connection(), self._transport_name)
        try:
            with wrap_errors(self._publisher.connection):
                connect(self._publisher.connection)
                return action(self._publisher)
        except BaseException:  # kombu's state is unknown after any error
            self._close_publisher()
            raise

    def _close_publisher(self) -> None:
        if self._publisher is not None:
            close_connection(self._publisher.connection)
            self._publisher = None
