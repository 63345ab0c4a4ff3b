"""The broker over kombu: `redis://`, `rediss://` and, within one process, `memory://`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import kombu

from ecs_queue.broker import topology
from ecs_queue.broker.base import OnDelivery, OnUndecodable, Outgoing
from ecs_queue.broker.connection import HeldCycle, abandon, connect, wrapping
from ecs_queue.broker.consumer import KombuConsumer, KombuInbox
from ecs_queue.broker.publisher import Publisher
from ecs_queue.errors import BrokerUnavailable

T = TypeVar("T")


class KombuBroker:
    """One connection to publish, made when first needed; each consumer and inbox has one of its own."""

    def __init__(self, url: str, namespace: str, *, visibility_timeout: float, socket_timeout: float) -> None:
        self._url = url
        self._namespace = namespace
        self._visibility_timeout = visibility_timeout
        self._socket_timeout = socket_timeout
        self._lock = threading.Lock()
        self._publisher: Publisher | None = None
        self._stranded: deque[Outgoing] = deque()

    def __repr__(self) -> str:
        """Without the URL: it may hold a password."""
        return f"KombuBroker(namespace={self._namespace!r})"

    def publish_requests(self, messages: Sequence[Outgoing]) -> None:
        """See `Broker.publish_requests`."""
        self._publishing(lambda publisher: publisher.requests(messages))

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Broker.publish_results`."""
        self._publishing(lambda publisher: publisher.results(messages))

    def consume(
        self, queues: Sequence[str], prefetch: int, on_delivery: OnDelivery, on_undecodable: OnUndecodable
    ) -> KombuConsumer:
        """See `Broker.consume`. What the server lost while it was full or went away is published again before: while
        that is not possible nothing more is taken, for it would be lost, too."""
        while self._stranded:
            self.publish_requests([self._stranded[0]])
            self._stranded.popleft()
        connection = self._connection()
        try:
            with wrapping(connection):
                return KombuConsumer(
                    connection, self._name, queues, prefetch, on_delivery, on_undecodable, self._stranded.append
                )
        except BaseException:
            abandon(connection)
            raise

    def results(self, owner: str) -> KombuInbox:
        """See `Broker.results`."""
        return KombuInbox(self._connection, self._name(topology.results_queue(owner)))

    def forget_results(self, owner: str) -> None:
        """See `Broker.forget_results`."""
        name = self._name(topology.results_queue(owner))
        # Not queue_delete: on the default exchange a queue has no binding, by which kombu finds what to delete.
        self._publishing(lambda publisher: publisher.channel.queue_purge(name))

    def backlog(self, queue: str) -> int:
        """See `Broker.backlog`."""
        name = self._name(topology.requests_queue(queue))
        return int(self._publishing(lambda publisher: publisher.channel._size(name)))

    def check(self) -> None:
        """See `Broker.check`."""
        connection = self._connection()
        try:
            with wrapping(connection):
                connect(connection)
                if connection.transport.driver_type == "redis":
                    connection.default_channel.client.ping()
        finally:
            abandon(connection)

    def close(self) -> None:
        """See `Broker.close`."""
        with self._lock:
            self._drop_publisher()

    def _name(self, name: str) -> str:
        """Redis keys are prefixed by kombu; other transports share one space of names."""
        return f"{self._namespace}.{name}" if self._url.startswith("memory:") else name

    def _connection(self) -> Any:
        if self._url.startswith("memory:"):
            return kombu.Connection(self._url, transport_options={"polling_interval": 0.01})
        options = topology.transport_options(self._namespace, self._visibility_timeout, self._socket_timeout)
        return kombu.Connection(self._url, transport_options={**options, "queue_order_strategy": HeldCycle})

    def _publishing(self, act: Callable[[Publisher], T]) -> T:
        """Run on the shared publisher; a connection that died while idle is replaced once."""
        with self._lock:
            was_idle = self._publisher is not None
            try:
                return self._act(act)
            except BrokerUnavailable:
                if not was_idle:
                    raise
            return self._act(act)

    def _act(self, act: Callable[[Publisher], T]) -> T:
        if self._publisher is None:
            self._publisher = Publisher(self._connection(), self._name)
        try:
            with wrapping(self._publisher.connection):
                connect(self._publisher.connection)
                return act(self._publisher)
        except BaseException:  # whatever it was, nobody knows in which state kombu is now
            self._drop_publisher()
            raise

    def _drop_publisher(self) -> None:
        if self._publisher is not None:
            abandon(self._publisher.connection)
            self._publisher = None
