"""Takes request messages from the broker, as many of each queue as may soon be launched, on one thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from functools import partial

from ecs_queue.broker.base import Broker, Delivery, RequestConsumer
from ecs_queue.core import envelope
from ecs_queue.crashpoints import reach
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable
from ecs_queue.launcher.lanes import Job, JobKind
from ecs_queue.launcher.launch import Launcher
from ecs_queue.launcher.parts import Parts
from ecs_queue.launcher.slots import Slots

#: A drain longer than this would leave the restore of lost messages to chance (KOMBU: it runs between drains).
_DRAIN = 1.0
#: How long a message that cannot be dealt with now is kept before it is given back, so that it does not spin. Seconds.
_BEFORE_RELEASE = 1.0
#: Unreadable elements that wait for a lost ledger; the oldest ones beyond are lost.
_UNBURIED_KEPT = 1000
#: Between looks for room while there is none: in the lanes, and for tasks of any queue (paused, full). Seconds.
_REST, _LONG_REST = 0.02, 0.2
#: Nothing is taken of a queue with enough waiting here until half of it is gone, or for so long. Seconds.
_LONGEST_PAUSE = 0.05


class Consumer:
    """One thread calls `step`, and `close` at the end: the connection and every acknowledgement are that thread's."""

    def __init__(self, parts: Parts, broker: Broker, launcher: Launcher, slots: Slots, queues: Sequence[str]) -> None:
        self._parts = parts
        self._broker = broker
        self._launcher = launcher
        self._slots = slots
        self._queues = list(queues)
        self._most_waiting = _most_waiting(parts)
        self._prefetch = parts.config.concurrency + len(queues) * self._most_waiting
        self._consumer: RequestConsumer | None = None
        self._paused: dict[str, float] = {}  # since when
        self._unburied: deque[tuple[str, bytes, str]] = deque(maxlen=_UNBURIED_KEPT)
        self._restored_at = float("-inf")
        self._empty: set[str] = set()

    def idle(self, queue: str) -> bool:
        """Whether a drain found the queue empty, or the broker could not be reached: no message will come."""
        return queue in self._empty

    def step(self) -> float:
        """Drain once; how many seconds to rest."""
        try:
            consumer = self._consumer or self._connect()
            self._bury_unreadable()
            room = self._hold_what_has_no_room(consumer)
            self._restore(consumer)
            if len(self._paused) == len(self._queues):
                consumer.drain(0.0)
                return _REST if any(map(self._parts.gates.may_launch, self._queues)) else _LONG_REST
            if not consumer.drain(_DRAIN, room):
                # A queue that is held, or whose messages wait here, may have more.
                asked = set(self._queues) - self._paused.keys()
                self._empty |= {queue for queue in asked if not self._slots.waiting(queue, JobKind.MESSAGE)}
        except BrokerUnavailable:
            self._empty = set(self._queues)
            self.close()
            raise
        return 0.0

    def close(self) -> None:
        """Give back what is not acknowledged."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def settle(self, timeout: float) -> None:
        """Take nothing more; until nothing is in hand carry out acknowledgements, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        try:
            self._pause_all()
            self._slots.drop_all()
            while self._slots.in_hand and time.monotonic() < deadline:
                if self._consumer is not None:
                    self._consumer.drain(0.02)
                self._slots.wait_until_idle(0.005)  # with every queue paused a drain does not wait
            self._bury_unreadable()
        except (BrokerUnavailable, LedgerUnavailable):
            # The broker gives what is not acknowledged to others; the calls in hand are finished all the same.
            self._slots.wait_until_idle(max(0.0, deadline - time.monotonic()))

    def _pause_all(self) -> None:
        if self._consumer is not None:
            for queue in set(self._queues) - self._paused.keys():
                self._consumer.pause(queue)
        self._paused = dict.fromkeys(self._queues, self._parts.monotonic())

    def _connect(self) -> RequestConsumer:
        self._consumer = self._broker.consume(self._queues, self._prefetch, self._received, self._unreadable)
        self._paused = {}
        return self._consumer

    def _received(self, delivery: Delivery) -> None:
        self._empty.discard(delivery.queue)
        permit = self._parts.permit_for(delivery.queue)
        priority = envelope.priority_of(delivery.body)
        handle = partial(self._handle, delivery)
        reach("consume.received")
        self._slots.submit(Job(handle, JobKind.MESSAGE, delivery.queue, priority, permit, delivery.put_back))

    def _handle(self, delivery: Delivery) -> None:
        """Acknowledged or given back, whatever happens: else the broker would hand over less and less."""
        if self._parts.rest(0.0):  # the worker stops: what is not begun is another one's
            _give_back(delivery)
            return
        try:
            dealt_with = self._launcher.take(delivery)
        except Exception:
            self._parts.rest(_BEFORE_RELEASE)
            _give_back(delivery)
            raise
        if dealt_with:
            reach("consume.dealt_with")
            delivery.ack()
            return
        if not self._parts.circuits.is_open(delivery.queue):  # an open one is paused at the next step
            self._parts.rest(_BEFORE_RELEASE)
        _give_back(delivery)

    def _unreadable(self, queue: str, raw: bytes, reason: str) -> None:
        """Nobody has it any more but this process, so it is kept until the ledger has it."""
        self._unburied.append((queue, raw, reason))
        reach("consume.unreadable")
        self._bury_unreadable()

    def _bury_unreadable(self) -> None:
        while self._unburied:
            try:
                self._launcher.bury(*self._unburied[0])
            except LedgerUnavailable:
                return  # at the next step again
            self._unburied.popleft()

    def _hold_what_has_no_room(self, consumer: RequestConsumer) -> dict[str, int]:
        """No more is taken than may be launched soon: the rest stays in the broker, in its order, and for others.

        For how many messages of each queue there is room.
        """
        rooms = {}
        for queue in self._queues:
            waiting = self._slots.waiting(queue, JobKind.MESSAGE)
            room = int(min(self._most_waiting, self._parts.gates.room(queue))) - waiting
            rooms[queue] = room
            if room <= 0 and queue not in self._paused:
                consumer.pause(queue)
                self._paused[queue] = self._parts.monotonic()
                self._empty.discard(queue)
            elif room > 0 and queue in self._paused and self._may_resume(queue, waiting):
                consumer.resume(queue)
                del self._paused[queue]
            if waiting and not self._parts.gates.may_launch(queue):
                self._slots.drop(queue, JobKind.MESSAGE)
        return rooms

    def _may_resume(self, queue: str, waiting: int) -> bool:
        """Several come with one trip, but no urgent one waits long for that."""
        has_waited = self._parts.monotonic() - self._paused[queue] >= _LONGEST_PAUSE
        return has_waited or 2 * waiting <= self._most_waiting

    def _restore(self, consumer: RequestConsumer) -> None:
        now = self._parts.monotonic()
        if now - self._restored_at >= self._parts.config.visibility_timeout / 6:
            self._restored_at = now
            consumer.restore()


def _give_back(delivery: Delivery) -> None:
    reach("consume.giving_back")
    delivery.release()


def _most_waiting(parts: Parts) -> int:
    """How many messages of one queue wait here for a slot: no more than leave within about a second."""
    rate = parts.config.run_task_rate
    return parts.config.concurrency if rate <= 0 else max(2, min(parts.config.concurrency, int(rate)))
