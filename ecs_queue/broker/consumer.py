"""Takes request messages and results over kombu."""

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
from ecs_queue.broker.base import OnDelivery, OnUndecodable, Outgoing
from ecs_queue.broker.connection import (
    HeldCycle,
    NotAMessage,
    Tap,
    abandon,
    body_of,
    close_channel,
    connect,
    put_back,
    request_queue,
    results_queue,
    wrapping,
)
from ecs_queue.broker.lean import Taken, Taker, acknowledge, lighten
from ecs_queue.crashpoints import reach
from ecs_queue.errors import BrokerUnavailable

T = TypeVar("T")

#: While messages are in hand, acknowledgements must not wait for the next message. Seconds.
_BUSY_DRAIN = 0.02
#: Acknowledgements are sent together: so many, or when none came within a drain.
_ACKS_TOGETHER = 16
#: The most acknowledgements of one round trip: Lua unpacks at most some 8,000 arguments.
_ACKS_AT_MOST = 1000
#: The most messages of one queue that one round trip brings.
_TAKEN_TOGETHER = 16
#: How long the server keeps a poll while a queue is held: what is resumed waits for its end. Seconds.
_POLL_WHILE_HELD = 0.05
#: The most results that one drain takes: a steady stream must not keep it from answering.
_RESULTS_AT_ONCE = 500
#: How long the server keeps an inbox's poll: closing waits for its end. Seconds.
_INBOX_POLL = 0.2


class KombuDelivery:
    """See `Delivery`."""

    __slots__ = ("_consumer", "body", "message", "queue", "redelivered")

    def __init__(self, consumer: KombuConsumer, queue: str, message: Any) -> None:
        self._consumer = consumer
        self.queue = queue
        self.message = message
        self.body = body_of(message)
        self.redelivered = bool((message.headers or {}).get("redelivered"))

    def ack(self) -> None:
        """See `Delivery.ack`. Only the first of several calls of `ack` and `release` counts."""
        self._consumer.finished(self, None)

    def release(self) -> None:
        """See `Delivery.release`."""
        self._consumer.finished(self, self.message.requeue)

    def put_back(self) -> None:
        """See `Delivery.put_back`."""
        self._consumer.finished(self, lambda: put_back(self.message))

    def __repr__(self) -> str:
        """Without the body."""
        return f"KombuDelivery(queue={self.queue!r})"


class KombuConsumer:
    """See `RequestConsumer`. kombu's objects are touched by the draining thread alone."""

    def __init__(
        self,
        connection: Any,
        name: Callable[[str], str],
        queues: Sequence[str],
        prefetch: int,
        on_delivery: OnDelivery,
        on_undecodable: OnUndecodable,
        on_stranded: Callable[[Outgoing], None],
    ) -> None:
        """Connects; raises what kombu raises. `on_stranded`: the server has lost this message, publish it again."""
        self._connection = connection
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._on_undecodable = on_undecodable
        self._on_stranded = on_stranded
        self._done: deque[tuple[KombuDelivery, Callable[[], None] | None]] = deque()
        self._something_done = threading.Event()
        self._in_hand: set[KombuDelivery] = set()
        self._received = 0
        self._closing = False
        connect(connection)
        self._channel = connection.channel()
        lighten(self._channel)
        self._channel.basic_qos(0, prefetch, False)
        wire_names = {name(topology.requests_queue(queue)): queue for queue in queues}
        self._queue_of = wire_names
        self._wire_name_of = {queue: wire_name for wire_name, queue in wire_names.items()}
        cycle = getattr(self._channel, "_queue_cycle", None)
        self._held: set[str] | None = cycle.held if isinstance(cycle, HeldCycle) else None
        self._poll = getattr(self._channel, "brpop_timeout", 0.0)
        self._taker = Taker(self._channel) if connection.transport.driver_type == "redis" else None
        self._taken: deque[Taken] = deque()
        self._may_be_more = False  # on the lists: the last drain has brought something
        self._consumers = {queue: self._consumer(wire_name, queue) for wire_name, queue in wire_names.items()}
        self._tap = Tap(connection, self._channel, self._unreadable, self._stranded)
        for consumer in self._consumers.values():
            consumer.consume()

    def drain(self, timeout: float, most: Mapping[str, int] | None = None) -> int:
        """See `RequestConsumer.drain`."""
        with wrapping(self._connection):
            most = most if most and self._takes_several else {}
            if self._must_settle(most):
                self._settle()
            if len(self._in_hand) >= self._prefetch:
                self._something_done.wait(timeout)
                self._settle()
                return 0
            if self._held is not None and len(self._held) == len(self._consumers) and not self._channel._in_poll:
                self._settle()
                return 0  # kombu would wait all the same; a poll that is under way must be read to its end
            before = self._received
            if not self._take(most):
                self._tap.drain(min(timeout, _BUSY_DRAIN) if self._in_hand else timeout)
            received = self._received - before
            self._may_be_more = bool(received)
            if not received:
                self._settle()
            return received

    def pause(self, queue: str) -> None:
        """See `RequestConsumer.pause`."""
        if self._held is not None:
            self._held.add(self._wire_name_of[queue])
            self._channel.brpop_timeout = min(self._poll, _POLL_WHILE_HELD)
            return
        with wrapping(self._connection):
            self._consumers[queue].cancel()

    def resume(self, queue: str) -> None:
        """See `RequestConsumer.resume`."""
        if self._held is not None:
            self._held.discard(self._wire_name_of[queue])
            self._may_be_more = True
            if not self._held:
                self._channel.brpop_timeout = self._poll
            return
        with wrapping(self._connection):
            self._consumers[queue].consume()

    def restore(self) -> None:
        """See `RequestConsumer.restore`."""
        restore = getattr(self._channel.qos, "restore_visible", None)
        if restore is not None:
            with wrapping(self._connection):
                restore(num=topology.RESTORED_AT_ONCE, interval=1)

    def finished(self, delivery: KombuDelivery, settle: Callable[[], None] | None) -> None:
        """From any thread: acknowledge (None), or give back with `settle`, at the next opportunity."""
        self._done.append((delivery, settle))
        self._something_done.set()

    def close(self) -> None:
        """See `RequestConsumer.close`."""
        self._closing = True
        reach("broker.closing")
        with suppress(BrokerUnavailable), wrapping(self._connection):
            self._settle()
            if not self._channel.do_restore:  # kombu's other channels give back by themselves when they are closed
                for delivery in self._in_hand:
                    delivery.message.requeue()
        # Before the connection, which forgets its channels and then drops what a paused queue's last poll brings.
        close_channel(self._channel)
        self._in_hand.clear()
        abandon(self._connection)

    def _must_settle(self, most: Mapping[str, int]) -> bool:
        """Before anything more is taken: the hand is full, or so much is done and will not go with the next take."""
        if len(self._in_hand) >= self._prefetch:
            return True
        return len(self._done) >= _ACKS_TOGETHER and not (most and self._done[0][1] is None)

    @property
    def _takes_several(self) -> bool:
        """Whether the next messages come several at once: there is a backlog, and no poll under way."""
        return self._may_be_more and not (self._taker is None or self._taken or self._channel._in_poll)

    def _take(self, most: Mapping[str, int]) -> bool:
        """Take several messages at once, where that is possible; whether there were any."""
        if self._taker is not None and most:
            self._taken.extend(self._acknowledge(partial(self._taker.take, self._wanted(most))))
            if self._taken:
                reach("broker.taken")
        found = bool(self._taken)
        while self._taken:
            one = self._taken.popleft()
            self._channel._queue_cycle.rotate(one.queue)
            self._tap.hand_over(one.queue, one.element)
            if one.tag in self._channel.qos.noted:  # it was no message
                self._channel.qos.noted.discard(one.tag)
                self._channel.qos.ack(one.tag)
        return found

    def _wanted(self, most: Mapping[str, int]) -> dict[str, int]:
        """By the transport's names, and no more than the prefetch allows; each queue is first in its turn."""
        left = self._prefetch - len(self._in_hand)
        wanted = {}
        for wire_name in self._channel._queue_cycle.consume(len(self._consumers)):
            number = min(left, _TAKEN_TOGETHER, most.get(self._queue_of[wire_name], 0))
            if number > 0:
                wanted[wire_name] = number
                left -= number
        return wanted

    def _consumer(self, wire_name: str, queue: str) -> Any:
        def received(message: Any) -> None:
            if self._closing:
                return  # taken while the connection closes, which gives it back
            try:
                delivery = KombuDelivery(self, queue, message)
            except (TypeError, ValueError) as error:
                message.ack()  # or it would come back for ever
                raise NotAMessage(str(error)) from error
            self._received += 1
            self._in_hand.add(delivery)
            self._on_delivery(delivery)

        def undecodable(message: Any, error: Exception) -> None:
            if not message.acknowledged:  # kombu calls this again with what this raises
                message.ack()
            raise NotAMessage(type(error).__name__) from error

        return kombu.Consumer(
            self._channel, [request_queue(wire_name)], on_message=received, on_decode_error=undecodable
        )

    def _settle(self) -> None:
        """Carry out what was asked for with `finished`, acknowledgements that follow each other in one go."""
        self._something_done.clear()
        while self._done:
            if self._done[0][1] is None:
                self._acknowledge(acknowledge)
                continue
            delivery, give_back = self._done[0]
            if give_back is not None and delivery in self._in_hand:
                reach("broker.giving_back")
                give_back()
                reach("broker.given_back")
                self._in_hand.discard(delivery)
            self._done.popleft()

    def _acknowledge(self, send: Callable[[list[Any]], T]) -> T:
        """What is dealt with and next in line, all of it with one `send`; what that answers."""
        together: list[KombuDelivery] = []
        while self._done and self._done[0][1] is None and len(together) < _ACKS_AT_MOST:
            together.append(self._done.popleft()[0])
        try:
            if together:
                reach("broker.acking")
            answer = send([delivery.message for delivery in together if delivery in self._in_hand])
            if together:
                reach("broker.acked")
        except BaseException:
            self._done.extendleft((delivery, None) for delivery in reversed(together))
            raise
        self._in_hand.difference_update(together)
        return answer

    def _stranded(self, wire_name: str, message: Mapping[str, Any]) -> None:
        properties = message["properties"]
        encoding, body = properties.get("body_encoding"), message["body"]
        codec = self._channel.codecs.get(encoding)
        decoded = codec.decode(body) if codec else body
        priority = properties.get("priority")
        if not isinstance(priority, int) or not topology.LOWEST_PRIORITY <= priority <= topology.HIGHEST_PRIORITY:
            priority = topology.LOWEST_PRIORITY
        ours = topology.wire_priority(priority, self._connection.transport.driver_type)  # its own inverse
        raw = decoded.encode() if isinstance(decoded, str) else bytes(decoded)
        self._on_stranded(Outgoing(self._queue_of.get(wire_name, wire_name), raw, ours))

    def _unreadable(self, wire_name: str, raw: bytes, reason: str) -> None:
        self._on_undecodable(self._queue_of.get(wire_name, wire_name), raw, reason)


def _restore_nothing(**_limits: Any) -> None:
    """In place of kombu's own."""


class KombuInbox:
    """See `ResultInbox`. Connects when first drained, and again after an error."""

    def __init__(self, make_connection: Callable[[], Any], name: str) -> None:
        self._make_connection = make_connection
        self._name = name
        self._connection: Any = None
        self._channel: Any = None
        self._tap: Tap | None = None
        self._bodies: list[bytes] = []

    def drain(self, timeout: float) -> list[bytes]:
        """See `ResultInbox.drain`. At most some hundreds at once; what is no message is dropped."""
        if self._connection is None:
            self._connection = self._make_connection()
        try:
            with wrapping(self._connection):
                self._take(self._tap or self._start(), timeout)
        except BrokerUnavailable:
            self.close()
            raise
        taken, self._bodies = self._bodies, []
        return taken

    def close(self) -> None:
        """See `ResultInbox.close`."""
        connection, self._connection, self._channel, self._tap = self._connection, None, None, None
        if connection is not None:
            abandon(connection)

    def _start(self) -> Tap:
        self._connection.transport.brpop_timeout = _INBOX_POLL
        connect(self._connection)
        channel = self._connection.channel()
        if hasattr(channel.qos, "restore_visible"):
            # Else kombu's first poll gives workers' messages back, by this process's idea of when they are overdue, and
            # with rights on the server that whoever waits for results need not have.
            channel.qos.restore_visible = _restore_nothing
        self._channel = channel
        self._tap = Tap(self._connection, channel, lambda _name, _raw, _reason: None, lambda _name, _message: None)
        kombu.Consumer(
            channel,
            [results_queue(self._name)],
            on_message=self._received,
            on_decode_error=self._undecodable,
            no_ack=True,
        ).consume()
        return self._tap

    def _undecodable(self, _message: Any, error: Exception) -> None:
        raise NotAMessage(type(error).__name__) from error

    def _received(self, message: Any) -> None:
        try:
            self._bodies.append(body_of(message))
        except (TypeError, ValueError) as error:
            raise NotAMessage(str(error)) from error

    def _take(self, tap: Tap, timeout: float) -> None:
        """kombu waits for the first one; what is there behind it comes in one round trip, where it is Redis."""
        deadline = time.monotonic() + timeout
        found = tap.drain(timeout)
        if found and self._connection.transport.driver_type == "redis":
            self._take_rest(tap)
            return
        while found and len(self._bodies) < _RESULTS_AT_ONCE and time.monotonic() < deadline:
            found = tap.drain(0.001)

    def _take_rest(self, tap: Tap) -> None:
        with self._channel.conn_or_acquire() as client:
            elements = client.rpop(self._name, _RESULTS_AT_ONCE - 1)  # publishers know one priority of results only
        for element in elements or ():
            tap.hand_over(self._name, element)
