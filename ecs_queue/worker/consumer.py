"""Takes request messages from the broker, as many of each queue as may soon be launched, on one thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from functools import partial

from ecs_queue.broker.base import Broker, Delivery, RequestConsumer
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable
from ecs_queue.messages import envelope
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.fair_queue import Job, JobKind
from ecs_queue.worker.launcher import Launcher
from ecs_queue.worker.thread_pool import LaunchThreadPool

#: A drain longer than this would leave the restore of lost messages to chance (KOMBU: it runs between drains).
_DRAIN_TIMEOUT = 1.0
#: How long a message that cannot be dealt with now is kept before it is given back, so that it does not spin. Seconds.
_RELEASE_DELAY = 1.0
#: Unreadable elements that wait for a lost ledger; the oldest ones beyond are lost.
_MAX_UNDECODABLE = 1000
#: Between looks for room while there is none: in the lanes, and for tasks of any queue (paused, full). Seconds.
_FULL_INTERVAL, _BLOCKED_INTERVAL = 0.02, 0.2
#: Nothing is taken of a queue with enough waiting here until half of it is gone, or for so long. Seconds.
_MAX_PAUSE = 0.05


class Consumer:
    """One thread calls `step`, and `close` at the end: the connection and every acknowledgement are that thread's."""

    def __init__(
        self,
        context: WorkerContext,
        broker: Broker,
        launcher: Launcher,
        thread_pool: LaunchThreadPool,
        queues: Sequence[str],
    ) -> None:
        self._context = context
        self._broker = broker
        self._launcher = launcher
        self._thread_pool = thread_pool
        self._queues = list(queues)
        self._max_waiting = _max_waiting_messages(context)
        self._prefetch = context.config.concurrency + len(queues) * self._max_waiting
        self._consumer: RequestConsumer | None = None
        self._paused: dict[str, float] = {}  # since when
        self._undecodable: deque[tuple[str, bytes, str]] = deque(maxlen=_MAX_UNDECODABLE)
        self._restored_at = float("-inf")
        self._drained_queues: set[str] = set()

    def is_drained(self, queue: str) -> bool:
        """Whether a drain found the queue empty, or the broker could not be reached: no message will come."""
        return queue in self._drained_queues

    def step(self) -> float:
        """Drain once; how many seconds to rest."""
        try:
            consumer = self._consumer or self._connect()
            self._flush_undecodable()
            room = self._pause_full_queues(consumer)
            self._restore_unacked(consumer)
            if len(self._paused) == len(self._queues):
                consumer.drain(0.0)
                return (
                    _FULL_INTERVAL if any(map(self._context.admission.may_launch, self._queues)) else _BLOCKED_INTERVAL
                )
            if not consumer.drain(_DRAIN_TIMEOUT, room):
                # A queue that is held, or whose messages wait here, may have more.
                asked = set(self._queues) - self._paused.keys()
                self._drained_queues |= {
                    queue for queue in asked if not self._thread_pool.waiting(queue, JobKind.MESSAGE)
                }
        except BrokerUnavailable:
            self._drained_queues = set(self._queues)
            self.close()
            raise
        return 0.0

    def close(self) -> None:
        """Give back what is not acknowledged."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def shut_down(self, timeout: float) -> None:
        """Take nothing more; until nothing is in hand carry out acknowledgements, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        try:
            self._pause_all()
            self._thread_pool.drop_all()
            while self._thread_pool.outstanding and time.monotonic() < deadline:
                if self._consumer is not None:
                    self._consumer.drain(0.02)
                self._thread_pool.wait_until_idle(0.005)  # with every queue paused a drain does not wait
            self._flush_undecodable()
        except (BrokerUnavailable, LedgerUnavailable):
            # The broker gives what is not acknowledged to others; the calls in hand are finished all the same.
            self._thread_pool.wait_until_idle(max(0.0, deadline - time.monotonic()))

    def _pause_all(self) -> None:
        if self._consumer is not None:
            for queue in set(self._queues) - self._paused.keys():
                self._consumer.pause(queue)
        self._paused = dict.fromkeys(self._queues, self._context.monotonic())

    def _connect(self) -> RequestConsumer:
        self._consumer = self._broker.consume_requests(
            self._queues, self._prefetch, self._on_delivery, self._on_undecodable
        )
        self._paused = {}
        return self._consumer

    def _on_delivery(self, delivery: Delivery) -> None:
        self._drained_queues.discard(delivery.queue)
        permit = self._context.rate_limit_for(delivery.queue)
        priority = envelope.read_priority(delivery.body)
        handle = partial(self._handle, delivery)
        crash_point("consumer.received")
        self._thread_pool.submit(
            Job(handle, JobKind.MESSAGE, delivery.queue, priority, permit, delivery.requeue_at_front)
        )

    def _handle(self, delivery: Delivery) -> None:
        """Acknowledged or given back, whatever happens: else the broker would hand over less and less."""
        if self._context.wait_for_stop(0.0):  # the worker stops: what is not begun is another one's
            _requeue(delivery)
            return
        try:
            dealt_with = self._launcher.handle_message(delivery)
        except Exception:
            self._context.wait_for_stop(_RELEASE_DELAY)
            _requeue(delivery)
            raise
        if dealt_with:
            crash_point("consumer.handled")
            delivery.ack()
            return
        if not self._context.circuit_breakers.is_open(delivery.queue):  # an open one is paused at the next step
            self._context.wait_for_stop(_RELEASE_DELAY)
        _requeue(delivery)

    def _on_undecodable(self, queue: str, raw: bytes, reason: str) -> None:
        """Nobody has it any more but this process, so it is kept until the ledger has it."""
        self._undecodable.append((queue, raw, reason))
        crash_point("consumer.undecodable")
        self._flush_undecodable()

    def _flush_undecodable(self) -> None:
        while self._undecodable:
            try:
                self._launcher.add_dead_letter(*self._undecodable[0])
            except LedgerUnavailable:
                return  # at the next step again
            self._undecodable.popleft()

    def _pause_full_queues(self, consumer: RequestConsumer) -> dict[str, int]:
        """No more is taken than may be launched soon: the rest stays in the broker, in its order, and for others.

        For how many messages of each queue there is room.
        """
        rooms = {}
        for queue in self._queues:
            waiting = self._thread_pool.waiting(queue, JobKind.MESSAGE)
            room = int(min(self._max_waiting, self._context.admission.available(queue))) - waiting
            rooms[queue] = room
            if room <= 0 and queue not in self._paused:
                consumer.pause(queue)
                self._paused[queue] = self._context.monotonic()
                self._drained_queues.discard(queue)
            elif room > 0 and queue in self._paused and self._may_resume(queue, waiting):
                consumer.resume(queue)
                del self._paused[queue]
            if waiting and not self._context.admission.may_launch(queue):
                self._thread_pool.drop(queue, JobKind.MESSAGE)
        return rooms

    def _may_resume(self, queue: str, waiting: int) -> bool:
        """Several come with one trip, but no urgent one waits long for that."""
        has_waited = self._context.monotonic() - self._paused[queue] >= _MAX_PAUSE
        return has_waited or 2 * waiting <= self._max_waiting

    def _restore_unacked(self, consumer: RequestConsumer) -> None:
        now = self._context.monotonic()
        if now - self._restored_at >= self._context.config.visibility_timeout / 6:
            self._restored_at = now
            consumer.restore_expired()


def _requeue(delivery: Delivery) -> None:
    crash_point("consumer.requeueing")
    delivery.requeue()


def _max_waiting_messages(context: WorkerContext) -> int:
    """How many messages of one queue wait here for a slot: no more than leave within about a second."""
    rate = context.config.run_task_rate
    return context.config.concurrency if rate <= 0 else max(2, min(context.config.concurrency, int(rate)))
