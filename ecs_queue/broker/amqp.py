"""The broker on RabbitMQ, through kombu's own transport for AMQP 0.9.1.

Names: NAMESPACE.requests.QUEUE and NAMESPACE.urgent.QUEUE are the quorum queues of a request queue, the latter for the
priorities 5 to 9, because only RabbitMQ 4 knows priorities in a quorum queue, and no more than two.
NAMESPACE.results.OWNER is a classic queue that expires. All are reached over the default exchange.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import kombu

from ecs_queue.broker import topology
from ecs_queue.broker.base import RequestMessage
from ecs_queue.broker.failures import is_not_found, unusable_is_unavailable, wrap_declaration_errors
from ecs_queue.broker.kombu import KombuBroker
from ecs_queue.broker.kombu_consumer import make_queue
from ecs_queue.broker_url import parse_amqp_url
from ecs_queue.errors import BrokerUnavailable

#: From this priority on a request goes to the urgent queue.
_FIRST_URGENT_PRIORITY = 5
#: RabbitMQ 4 drops a message after 20 returns unless a queue says otherwise; each return of a worker that stops counts.
_DELIVERY_LIMIT = 1_000_000
_REQUEST_QUEUE = {"x-queue-type": "quorum", "x-delivery-limit": _DELIVERY_LIMIT}
#: Messages that are sent before their confirmations are awaited.
_MAX_UNCONFIRMED = 200
#: Queues that a connection remembers as declared.
_MAX_DECLARED = 10_000


class AmqpBroker(KombuBroker):
    """A `Broker` on RabbitMQ. An unroutable or unconfirmed publish is an error."""

    _confirming: ConfirmingPublisher | None = None

    def publish_requests(self, messages: Sequence[RequestMessage]) -> None:
        """See `Broker.publish_requests`."""
        self._publish_confirmed(
            [(self._request_queue(one.queue, one.priority), one.priority, one.body) for one in messages], mandatory=True
        )

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Broker.publish_results`. An owner that deleted its queue does not read it again."""
        self._publish_confirmed([(self._result_queue(owner), 0, body) for owner, body in messages], mandatory=False)

    def delete_result_queue(self, owner: str) -> None:
        """See `Broker.delete_result_queue`."""
        name = self._result_queue(owner).name

        def delete(publisher: ConfirmingPublisher) -> None:
            publisher.channel.queue_delete(name)
            publisher.forget(name)

        self._with_confirming_publisher(delete)

    def backlog(self, queue: str) -> int:
        """See `Broker.backlog`. It declares no queue."""
        names = [declared.name for declared in self._request_queues(queue)]
        return self._with_publisher(lambda connection: sum(_count_messages(connection, name) or 0 for name in names))

    def check(self, queues: Sequence[str] = (), *, may_create: bool = True) -> None:
        """See `Broker.check`."""
        declared = [one for queue in queues for one in self._request_queues(queue)]

        def declare_all(connection: Any) -> None:
            for one in declared:
                if may_create or _count_messages(connection, one.name) is not None:
                    with closing(connection.channel()) as channel, wrap_declaration_errors(connection, one.name):
                        one(channel).declare()

        self._with_publisher(declare_all)

    def _request_queues(self, queue: str) -> list[Any]:
        return [self._request_queue(queue, priority) for priority in (_FIRST_URGENT_PRIORITY, 0)]

    def _request_queue(self, queue: str, priority: int) -> Any:
        name = topology.request_queue_name(queue)
        if priority >= _FIRST_URGENT_PRIORITY:
            name = topology.urgent_queue_name(queue)
        return make_queue(self._name(name), _REQUEST_QUEUE)

    def _result_queue(self, owner: str) -> Any:
        # Durable, though its messages are not: RabbitMQ retires transient queues that are not exclusive.
        name = self._name(topology.result_queue_name(owner))
        return make_queue(name, {"x-expires": 1000 * topology.RESULT_QUEUE_EXPIRY_SECONDS})

    def _make_connection(self, *, is_drained: bool = False) -> Any:
        """Return a connection; only one that is drained all the time sends and awaits heartbeats."""
        parsed = parse_amqp_url(self._url)
        timeouts = {"read_timeout": self._socket_timeout, "write_timeout": self._socket_timeout}
        return kombu.Connection(
            parsed.location,
            ssl=parsed.tls,
            heartbeat=parsed.heartbeat if is_drained else 0,
            connect_timeout=self._socket_timeout,
            transport_options=timeouts,
        )

    def _publish_confirmed(self, messages: Sequence[tuple[Any, int, bytes]], *, mandatory: bool) -> None:
        if messages:
            with unusable_is_unavailable():
                self._with_confirming_publisher(lambda publisher: publisher.publish(messages, mandatory=mandatory))

    def _with_confirming_publisher(self, action: Callable[[ConfirmingPublisher], None]) -> None:
        def run(connection: Any) -> None:
            if self._confirming is None or self._confirming.connection is not connection:
                self._confirming = ConfirmingPublisher(connection, self._socket_timeout)
            action(self._confirming)

        self._with_publisher(run)


class ConfirmingPublisher:
    """Publishes on a channel of its own, and returns when RabbitMQ has confirmed all of a batch.

    kombu's option `confirm_publish` waits for each message.
    """

    def __init__(self, connection: Any, timeout: float) -> None:
        self.connection = connection
        self.channel = connection.channel()
        self.channel.confirm_select()
        self.channel.events["basic_ack"].add(self._on_ack)
        self.channel.events["basic_nack"].add(self._on_nack)
        self.channel.events["basic_return"].add(self._on_return)
        self._producer = kombu.Producer(self.channel, auto_declare=False)
        self._timeout = timeout
        self._sent = 0
        self._unconfirmed: dict[int, None] = {}
        self._refusals: list[str] = []
        self._declared: dict[str, None] = {}

    def publish(self, messages: Sequence[tuple[Any, int, bytes]], *, mandatory: bool) -> None:
        """Publish (queue, priority, body) to queues that are declared first.

        Args:
            messages: In order.
            mandatory: A message that reaches no queue is an error. Otherwise it is dropped, and none is stored on disk.
        """
        for queue, priority, body in messages:
            self._declare(queue)
            self._producer.publish(
                body,
                exchange="",
                routing_key=queue.name,
                priority=priority,
                mandatory=mandatory,
                delivery_mode=2 if mandatory else 1,
                content_type="application/json",
                content_encoding="utf-8",
            )
            self._sent += 1
            self._unconfirmed[self._sent] = None
            if len(self._unconfirmed) >= _MAX_UNCONFIRMED:
                self._wait_for_confirmations()
        self._wait_for_confirmations()

    def forget(self, name: str) -> None:
        """Declare this queue again before the next publish to it."""
        self._declared.pop(name, None)

    def _declare(self, queue: Any) -> None:
        if queue.name in self._declared:
            return
        with wrap_declaration_errors(self.connection, queue.name):
            queue(self.channel).declare()
        self._declared[queue.name] = None
        if len(self._declared) > _MAX_DECLARED:
            self._declared.clear()

    def _wait_for_confirmations(self) -> None:
        deadline = time.monotonic() + self._timeout
        while self._unconfirmed and (left := deadline - time.monotonic()) > 0:
            unconfirmed = len(self._unconfirmed)
            try:
                self.connection.drain_events(timeout=left)
            except TimeoutError:
                break
            if len(self._unconfirmed) < unconfirmed:
                deadline = time.monotonic() + self._timeout
        if self._refusals:
            raise BrokerUnavailable(f"the broker refused a message: {self._refusals[0]}; check broker_url's server")
        if self._unconfirmed:
            raise BrokerUnavailable(
                f"the broker confirmed no message for {self._timeout:g} s: check the server; RabbitMQ blocks "
                "publishers while its memory or disk is full"
            )

    def _on_ack(self, tag: int, multiple: bool) -> None:
        if not multiple:
            self._unconfirmed.pop(tag, None)
            return
        for confirmed in [one for one in self._unconfirmed if one <= tag]:
            del self._unconfirmed[confirmed]

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._on_ack(tag, multiple)
        self._refusals.append("it was not stored")

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: object) -> None:
        del error, exchange, message
        self.forget(routing_key)
        self._refusals.append(f"there is no queue {routing_key}")


def _count_messages(connection: Any, name: str) -> int | None:
    """Return how many messages are ready in a queue; None when it does not exist."""
    channel = connection.channel()  # an error closes it
    try:
        count = int(channel.queue_declare(name, passive=True).message_count)
    except tuple(connection.channel_errors) as error:
        if is_not_found(error):
            return None
        raise
    channel.close()
    return count
