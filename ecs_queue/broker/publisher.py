"""Publishes through a kombu connection.

kombu makes some 120 calls for each message. On Redis, where a queue is a list, the publisher therefore pushes the
elements itself: the same JSON (docs/messages.md), several with one LPUSH, all in one round trip.
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

#: Maximum messages per round trip, and per command: longer commands take several times as long to build.
_MESSAGES_PER_ROUND_TRIP, _MESSAGES_PER_COMMAND = 500, 16

#: (the transport's name of a queue, priority) -> bodies in order.
_BodiesByList = dict[tuple[str, int], list[bytes]]


class Publisher:
    """Publishes on one connection. Used by one thread at a time. Raises kombu's errors."""

    def __init__(self, connection: Any, transport_name: Callable[[str], str]) -> None:
        """Use `connection`; `transport_name` returns a queue's name on this transport."""
        self.connection = connection
        self._transport_name = transport_name

    @property
    def channel(self) -> Any:
        """The channel, opened when first used."""
        return self.connection.default_channel

    def publish_requests(self, messages: Sequence[RequestMessage]) -> None:
        """See `Broker.publish_requests`."""
        transport = self.connection.transport.driver_type
        for batch in _batches(messages):
            lists = _BodiesByList()
            for message in batch:
                name = self._transport_name(topology.request_queue_name(message.queue))
                priority = topology.transport_priority(message.priority, transport)
                lists.setdefault((name, priority), []).append(message.body)
            self._publish(lists)

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Broker.publish_results`."""
        for batch in _batches(messages):
            lists = _BodiesByList()
            for owner, body in batch:
                lists.setdefault((self._transport_name(topology.result_queue_name(owner)), 0), []).append(body)
            self._publish(lists, topology.RESULT_QUEUE_EXPIRY_SECONDS)

    def _publish(self, lists: _BodiesByList, expire_after: int = 0) -> None:
        """Publish; a list expires `expire_after` seconds after the last push, 0 means never."""
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
                while batch := list(islice(entries, _MESSAGES_PER_COMMAND)):
                    pipe.lpush(key, *batch)
                if expire_after:
                    pipe.pexpire(key, 1000 * expire_after)  # kombu adds its prefix to this command's key
            # An error raised by redis-py would quote the command with the payload.
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
    """Yield elements of a list: messages in kombu's format, each with its own delivery tag."""
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
