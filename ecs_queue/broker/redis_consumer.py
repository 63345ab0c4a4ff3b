"""Consumes request messages on Redis: takes, acknowledges and returns several with one run of a script.

An idle consumer blocks on the wake-up keys of its queues (topology.py), which our publishers set. It also looks at the
lists every `POLL_SECONDS`: other programs publish without setting these keys. A blocking pop of the lists themselves
would take a message off its list before anything notes which consumer has it.
"""

from __future__ import annotations

import math
import re
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import redis.exceptions

from ecs_queue.broker import topology
from ecs_queue.broker.base import OnDelivery, OnUndecodable
from ecs_queue.broker.element import (
    UndecodableElement,
    decode_element,
    find_problem,
    find_size_problem,
    mark_redelivered,
)
from ecs_queue.broker.failures import CONNECTION_ERRORS, wrap_error
from ecs_queue.broker.outstanding import OutstandingDeliveries, OutstandingDelivery, Request
from ecs_queue.broker.redis_restorer import MAX_PER_RUN, MessageRestorer, Taken, read_script
from ecs_queue.crash_points import crash_point

#: The shortest wait that all servers understand; 0 would be for ever. Seconds.
MIN_BLOCK_SECONDS = 0.001
#: Wait for a message while others are unacknowledged: their acknowledgements must not wait long. An idle server ends it
#: up to 100 ms later, at its next tick. Seconds.
_BLOCK_SECONDS_WHILE_BUSY = 0.02
#: Time between two looks at the lists while nothing wakes the consumer. Seconds.
POLL_SECONDS = 0.25
#: Maximum messages of one queue of one run, during which the server serves no other client: about a millisecond.
_MAX_TAKEN_PER_QUEUE = 64
_UNREADABLE_TAG = re.compile(rb"([0-9]{1,15}\.[0-9]{6}) ([A-Za-z0-9_.-]+) ")


@contextmanager
def wrap_redis_errors() -> Iterator[None]:
    """Raise what redis-py raises as BrokerUnavailable, without the URL."""
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as error:
        raise wrap_error(error) from error


class ConsumerLimits(NamedTuple):
    """What bounds a consumer: times in seconds, the maximum size of an element in bytes.

    `max_block_seconds` is the longest wait at the server; 0: the socket's time-out is too short for one.
    """

    visibility_timeout: float
    max_message_bytes: int
    max_block_seconds: float


class RedisRequestConsumer:
    """See `RequestConsumer`. Only the draining thread uses the connection."""

    def __init__(
        self,
        client: Any,
        keys: topology.QueueKeys,
        queues: Sequence[str],
        prefetch: int,
        limits: ConsumerLimits,
        on_delivery: OnDelivery,
        on_undecodable: OnUndecodable,
    ) -> None:
        """Use `client`, which `close` closes."""
        self._client = client
        self._keys = keys
        self._prefetch = prefetch
        self._limits = limits
        self._on_delivery = on_delivery
        self._on_undecodable = on_undecodable
        self._take_script = client.register_script(read_script("take.lua"))
        self._give_back_script = client.register_script(read_script("give_back.lua"))
        self._restorer = MessageRestorer(client, keys, limits.max_message_bytes, on_undecodable)
        self._queue_of = {topology.request_queue_name(queue): queue for queue in queues}
        self._names = list(self._queue_of)  # the one whose turn it is first
        self._take_keys = {name: [*keys.list_keys(name), keys.wake_key(name)] for name in self._names}
        self._suspended: set[str] = set()
        self._outstanding = OutstandingDeliveries()
        self._taken: deque[Taken] = deque()  # not delivered yet
        self._refused_tags: list[bytes] = []  # of messages that were reported as undecodable
        self._may_be_more = True  # the last look found messages, a queue was resumed, or the server woke this consumer
        self._next_look = 0.0

    def drain(self, timeout: float, limits: Mapping[str, int] | None = None) -> int:
        """See `RequestConsumer.drain`."""
        with wrap_redis_errors():
            if self._taken:  # an error of `on_delivery` left them
                return self._deliver()
            if self._is_full and not self._send_requests():
                self._outstanding.wait_for_request(timeout)
                self._send_requests()
                return 0
            names = [name for name in self._names if self._queue_of[name] not in self._suspended]
            if not names:
                self._send_requests()
                return 0
            return self._receive_or_wait(timeout, names, limits)

    def suspend(self, queue: str) -> None:
        """See `RequestConsumer.suspend`."""
        self._suspended.add(queue)

    def resume(self, queue: str) -> None:
        """See `RequestConsumer.resume`."""
        self._suspended.discard(queue)
        self._may_be_more = True

    def restore_expired(self) -> bool:
        """See `RequestConsumer.restore_expired`. Elements that a dead consumer did not report are reported here."""
        with wrap_redis_errors():
            seconds, microseconds = self._client.time()
            latest = f"{seconds + microseconds / 1e6 - self._limits.visibility_timeout:.6f}"
            is_more, refused = self._restorer.run(latest)
            self._refused_tags += refused
            if is_more:
                return True
            for tag, first_bytes in self._client.hscan_iter(self._keys.unreadable):
                taken_at, name = _parse_unreadable_tag(tag)
                if taken_at <= float(latest):
                    self._report_unreadable(name, tag, first_bytes, find_problem(first_bytes))
            return False

    def close(self) -> None:
        """See `RequestConsumer.close`."""
        crash_point("broker.closing")
        with suppress(*CONNECTION_ERRORS), wrap_redis_errors():
            self._send_requests()
            held = [delivery.message for delivery in self._outstanding] + list(self._taken)
            # The last one first, so that the first one is next again.
            self._give_back([(taken, Request.REQUEUE_AT_FRONT) for taken in reversed(held)])
        self._outstanding.remove(self._outstanding)
        self._taken.clear()
        with suppress(*CONNECTION_ERRORS), wrap_redis_errors():
            self._client.close()

    @property
    def _is_full(self) -> bool:
        return len(self._outstanding) >= self._prefetch

    def _receive_or_wait(self, timeout: float, names: Sequence[str], limits: Mapping[str, int] | None) -> int:
        deadline = time.monotonic() + (min(timeout, _BLOCK_SECONDS_WHILE_BUSY) if self._outstanding else timeout)
        while True:
            if self._must_look() and (received := self._receive(names, limits)):
                return received
            left = deadline - time.monotonic()
            if left <= 0:
                return 0
            self._wait(max(min(left, self._next_look - time.monotonic()), MIN_BLOCK_SECONDS), names)

    def _wait(self, seconds: float, names: Sequence[str]) -> None:
        if not self._limits.max_block_seconds:
            time.sleep(seconds)
            return
        wake_keys = [self._keys.wake_key(name) for name in names]
        if self._client.bzpopmin(wake_keys, min(seconds, self._limits.max_block_seconds)):
            self._may_be_more = True

    def _must_look(self) -> bool:
        """Whether to run the script before a wait: messages are likely, or it carries requests anyway."""
        is_due = self._may_be_more or time.monotonic() >= self._next_look
        return is_due or bool(self._refused_tags or self._outstanding.pending_requests())

    def _receive(self, names: Sequence[str], limits: Mapping[str, int] | None) -> int:
        """Send what was requested, take messages, and deliver them. Return their number."""
        self._send_returns()
        room = self._prefetch - len(self._outstanding) + len(self._pending_acks())
        if limits is None:
            room, limits = min(room, 1), dict.fromkeys(self._queue_of.values(), 1)
        self._next_look = time.monotonic() + POLL_SECONDS
        self._run_take({name: min(limits.get(self._queue_of[name], 0), _MAX_TAKEN_PER_QUEUE) for name in names}, room)
        return self._deliver()

    def _send_requests(self) -> int:
        """Send every acknowledgement and return; return their number."""
        sent = self._send_returns()
        while acks := len(self._pending_acks()) + len(self._refused_tags):
            self._run_take({}, 0)
            sent += acks
        return sent

    def _pending_acks(self) -> list[OutstandingDelivery]:
        pending = self._outstanding.pending_requests().items()
        return [delivery for delivery, request in pending if request is Request.ACK][:MAX_PER_RUN]

    def _run_take(self, limits: Mapping[str, int], room: int) -> None:
        """Acknowledge, and take at most `room` messages; elements that the server cannot read are reported."""
        limits = {name: limit for name, limit in limits.items() if limit > 0}
        acked, refused = self._pending_acks(), self._refused_tags[:MAX_PER_RUN]
        tags = [*(delivery.message.tag for delivery in acked), *refused]
        if not tags and not limits:
            return
        keys = [self._keys.unacked, self._keys.unacked_index, self._keys.unreadable]
        keys += [key for name in limits for key in self._take_keys[name]]
        head = [topology.LISTS_PER_QUEUE, room, self._limits.max_message_bytes, uuid.uuid4().hex, len(tags)]
        pairs = [value for pair in limits.items() for value in pair]
        if tags:
            crash_point("broker.acking")
        taken, unreadable = self._take_script(keys=keys, args=[*head, *tags, *pairs])
        if tags:
            crash_point("broker.acked")
        self._outstanding.remove(acked)
        del self._refused_tags[: len(refused)]
        self._may_be_more = bool(taken or unreadable)
        if self._may_be_more:
            crash_point("broker.taken")
        name_of = [name for name in limits for _ in self._take_keys[name]]
        self._taken.extend(Taken(name_of[number - 4], tag, element) for number, tag, element in _rows(taken, 3))
        self._serve_last({message.name for message in self._taken})
        for number, tag, first_bytes, size in _rows(unreadable, 4):
            problem = find_size_problem(size, self._limits.max_message_bytes) or find_problem(first_bytes)
            self._report_unreadable(name_of[number - 4], tag, first_bytes, problem)

    def _serve_last(self, served: Set[str]) -> None:
        """Let other queues come first in the next run."""
        self._names.sort(key=lambda name: name in served)

    def _deliver(self) -> int:
        received = 0
        while self._taken:
            taken = self._taken.popleft()
            queue = self._queue_of[taken.name]
            try:
                body, redelivered = decode_element(taken.element)
            except UndecodableElement as error:
                self._on_undecodable(queue, taken.element, str(error))
                self._refused_tags.append(taken.tag)
                continue
            received += 1
            self._on_delivery(OutstandingDelivery(self._outstanding, queue, body, redelivered, taken))
        return received

    def _report_unreadable(self, name: str, tag: bytes, first_bytes: bytes, problem: str) -> None:
        """Report an element that is in the hash of unreadable ones, and drop it there."""
        queue = self._queue_of.get(name, topology.request_queue_of(name))
        self._on_undecodable(queue, first_bytes, problem or "not a message that the server can read")
        self._client.hdel(self._keys.unreadable, tag)

    def _send_returns(self) -> int:
        pending = self._outstanding.pending_requests().items()
        returns = {delivery: request for delivery, request in pending if request is not Request.ACK}
        if returns:
            crash_point("broker.requeueing")
            self._give_back([(delivery.message, request) for delivery, request in returns.items()])
            crash_point("broker.requeued")
            self._outstanding.remove(returns)
            self._may_be_more = True
        return len(returns)

    def _give_back(self, returns: Sequence[tuple[Taken, Request]]) -> None:
        """Run give_back.lua for messages that `decode_element` accepts."""
        for start in range(0, len(returns), MAX_PER_RUN):
            keys = {self._keys.unacked: 1, self._keys.unacked_index: 2}
            arguments: list[Any] = []
            for taken, request in returns[start : start + MAX_PER_RUN]:
                element, priority = mark_redelivered(taken.element, taken.name)
                list_number = keys.setdefault(self._keys.list_key(taken.name, priority), len(keys) + 1)
                wake_number = keys.setdefault(self._keys.wake_key(taken.name), len(keys) + 1)
                push = "LPUSH" if request is Request.REQUEUE else "RPUSH"
                arguments += [taken.tag, list_number, wake_number, push, element]
            self._give_back_script(keys=list(keys), args=arguments)


def _parse_unreadable_tag(tag: bytes) -> tuple[float, str]:
    """Return the time and the broker's queue name of take.lua's tag; for another program's -inf and ""."""
    found = _UNREADABLE_TAG.match(tag)
    return (float(found[1]), found[2].decode()) if found else (-math.inf, "")


def _rows(flat: Sequence[Any], length: int) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a script's reply, each of `length` values."""
    return zip(*[iter(flat)] * length, strict=True)
