"""Publishes through a kombu connection.

kombu makes some 120 calls for each message. On Redis, where a queue is a list, its entries are therefore written as
they are: the same JSON (docs/messages.md), several with one LPUSH, all in one round trip.
"""

from __future__ import annotations

import uuid
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import kombu
import msgspec

from ecs_queue.broker import topology
from ecs_queue.broker.base import RequestMessage

T = TypeVar("T")

#: Messages of one round trip, and of one command: longer ones take several times as long to put together.
_MESSAGES_PER_ROUND_TRIP, _MESSAGES_PER_COMMAND = 500, 16

#: By the transport's name of a queue and its priority: bodies, in order.
_BodiesByList = dict[tuple[str, int], list[bytes]]


class Publisher:
    """One connection and its channel, for one thread at a time. Raises what kombu raises."""

    def __init__(self, connection: Any, transport_name: Callable[[str], str]) -> None:
        """`name`: a queue's name on this transport."""
        self.connection = connection
        self._transport_name = transport_name

    @property
    def channel(self) -> Any:
        """Made when first needed."""
        return self.connection.default_channel

    def publish_requests(self, messages: Sequence[RequestMessage]) -> None:
        """See `Broker.publish_requests`."""
        transport = self.connection.transport.driver_type
        for some in _batches(messages):
            lists = _BodiesByList()
            for message in some:
                place = (message.queue, message.priority)
                lists.setdefault(place, []).append(message.body)
            self._publish(
                {
                    (
                        self._transport_name(topology.request_queue_name(queue)),
                        topology.transport_priority(priority, transport),
                    ): bodies
                    for (queue, priority), bodies in lists.items()
                }
            )

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Broker.publish_results`."""
        for some in _batches(messages):
            lists = _BodiesByList()
            for owner, body in some:
                lists.setdefault((self._transport_name(topology.result_queue_name(owner)), 0), []).append(body)
            self._publish(lists, topology.RESULT_QUEUE_EXPIRY_SECONDS)

    def _publish(self, lists: _BodiesByList, expire_after: int = 0) -> None:
        """`expire_after`: a list is dropped when nothing is pushed for so many seconds; 0: never."""
        if self.connection.transport.driver_type == "redis":
            self._push_to_redis(lists, expire_after)
        else:
            self._publish_with_kombu(lists)

    def _push_to_redis(self, lists: _BodiesByList, expire_after: int) -> None:
        channel = self.channel
        with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            for (queue, priority), bodies in lists.items():
                key = channel._q_for_pri(queue, priority)
                entries = _encode_entries(queue, priority, bodies)
                while some := list(islice(entries, _MESSAGES_PER_COMMAND)):
                    pipe.lpush(key, *some)
                if expire_after:
                    pipe.pexpire(key, 1000 * expire_after)  # kombu puts its prefix before this one's key
            # redis-py's own raising would quote the command, and with it the payload.
            for reply in pipe.execute(raise_on_error=False):
                if isinstance(reply, Exception):
                    raise reply

    def _publish_with_kombu(self, lists: _BodiesByList) -> None:
        producer = kombu.Producer(self.channel)
        for (queue, priority), bodies in lists.items():
            for body in bodies:
                producer.publish(
                    body,
                    exchange="",
                    routing_key=queue,
                    priority=priority,
                    content_type="application/json",
                    content_encoding="utf-8",
                )


def _batches(messages: Sequence[T]) -> Iterator[Sequence[T]]:
    return (
        messages[start : start + _MESSAGES_PER_ROUND_TRIP]
        for start in range(0, len(messages), _MESSAGES_PER_ROUND_TRIP)
    )


def _encode_entries(queue: str, priority: int, bodies: Sequence[bytes]) -> Iterator[bytes]:
    """Elements of a list: messages in kombu's format, each with a tag of its own."""
    properties = {
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": priority,
        "body_encoding": "base64",
    }
    common = {"content-encoding": "utf-8", "content-type": "application/json", "headers": {}}
    head = msgspec.json.encode({**common, "properties": properties}).removesuffix(b"}}")
    for body in bodies:
        tag = str(uuid.uuid4()).encode()
        encoded = b2a_base64(body, newline=False)
        yield b"".join((head, b',"delivery_tag":"', tag, b'"},"body":"', encoded, b'"}'))
