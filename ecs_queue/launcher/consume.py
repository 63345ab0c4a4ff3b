"""Takes request messages from the broker, as many as there are free slots, on one thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from functools import partial

from ecs_queue.broker.base import Broker, Delivery, RequestConsumer
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable
from ecs_queue.launcher.launch import Launcher, Parts
from ecs_queue.launcher.slots import Slots

#: A drain longer than this would leave the restore of lost messages to chance (KOMBU: it runs between drains).
_DRAIN = 1.0
#: How long a message that cannot be dealt with now is kept before it is given back, so that it does not spin. Seconds.
_BEFORE_RELEASE = 1.0
#: Unreadable elements that wait for a lost ledger; the oldest ones beyond are lost.
_UNBURIED_KEPT = 1000


class Consumer:
    """One thread calls `step`, and `close` at the end: the connection and every acknowledgement are that thread's."""

    def __init__(self, parts: Parts, broker: Broker, launcher: Launcher, slots: Slots, queues: Sequence[str]) -> None:
        self._parts = parts
        self._broker = broker
        self._launcher = launcher
        self._slots = slots
        self._queues = list(queues)
        self._consumer: RequestConsumer | None = None
        self._paused: set[str] = set()
        self._unburied: deque[tuple[str, bytes, str]] = deque(maxlen=_UNBURIED_KEPT)
        self._restored_at = float("-inf")
        self._idle = False

    def idle(self) -> bool:
        """Whether the last drain found the queues empty, or the broker could not be reached: no message will come."""
        return self._idle

    def step(self) -> float:
        """Drain once; how many seconds to rest."""
        try:
            consumer = self._consumer or self._connect()
            self._bury_unreadable()
            self._follow_circuits(consumer)
            if len(self._paused) == len(self._queues):
                consumer.drain(0.0)
                return 0.2
            self._restore(consumer)
            # With every slot busy a drain answers 0 whatever is in the queues.
            had_room = self._slots.free > 0
            received = consumer.drain(_DRAIN)
            self._idle = had_room and not received
        except BrokerUnavailable:
            self._idle = True
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
            for queue in set(self._queues) - self._paused:
                self._consumer.pause(queue)
        self._paused = set(self._queues)

    def _connect(self) -> RequestConsumer:
        self._consumer = self._broker.consume(
            self._queues, self._parts.config.concurrency, self._received, self._unreadable
        )
        self._paused = set()
        return self._consumer

    def _received(self, delivery: Delivery) -> None:
        self._slots.submit(partial(self._handle, delivery))

    def _handle(self, delivery: Delivery) -> None:
        """Acknowledged or given back, whatever happens: else the broker would hand over less and less."""
        if self._parts.rest(0.0):  # the worker stops: what is not begun is another one's
            delivery.release()
            return
        try:
            dealt_with = self._launcher.take(delivery)
        except Exception:
            self._parts.rest(_BEFORE_RELEASE)
            delivery.release()
            raise
        if dealt_with:
            delivery.ack()
            return
        if not self._parts.circuits.is_open(delivery.queue):  # an open one is paused at the next step
            self._parts.rest(_BEFORE_RELEASE)
        delivery.release()

    def _unreadable(self, queue: str, raw: bytes, reason: str) -> None:
        """Nobody has it any more but this process, so it is kept until the ledger has it."""
        self._unburied.append((queue, raw, reason))
        self._bury_unreadable()

    def _bury_unreadable(self) -> None:
        while self._unburied:
            try:
                self._launcher.bury(*self._unburied[0])
            except LedgerUnavailable:
                return  # at the next step again
            self._unburied.popleft()

    def _follow_circuits(self, consumer: RequestConsumer) -> None:
        for queue in self._queues:
            is_open = self._parts.circuits.is_open(queue)
            if is_open and queue not in self._paused:
                consumer.pause(queue)
                self._paused.add(queue)
            elif not is_open and queue in self._paused:
                consumer.resume(queue)
                self._paused.discard(queue)

    def _restore(self, consumer: RequestConsumer) -> None:
        now = self._parts.monotonic()
        if now - self._restored_at >= self._parts.config.visibility_timeout / 6:
            self._restored_at = now
            consumer.restore()
