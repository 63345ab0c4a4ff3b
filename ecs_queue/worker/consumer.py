"""Takes request messages from the broker on one thread: as many of each queue as may soon be launched."""

from __future__ import annotations

import time
from collections import deque
from functools import partial

from ecs_queue.broker.base import Broker, Delivery, RequestConsumer
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable, MissingRight
from ecs_queue.messages import envelope
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.fair_queue import Job, JobKind
from ecs_queue.worker.first_try import first_try
from ecs_queue.worker.launcher import Launcher
from ecs_queue.worker.thread_pool import LaunchThreadPool

#: The longest drain: the broker restores lost messages between drains. Seconds.
_DRAIN_TIMEOUT = 1.0
#: How long a message that cannot be handled now is kept before it is requeued, to avoid a busy loop. Seconds.
_REQUEUE_DELAY = 1.0
#: Undecodable elements that wait for a lost ledger; the oldest ones beyond are lost.
_MAX_UNDECODABLE = 1000
#: Time between checks for room while there is none in the fair queue, and while no queue may launch. Seconds.
_FULL_INTERVAL, _BLOCKED_INTERVAL = 0.02, 0.2
#: A queue with enough waiting messages is suspended until half of them are gone, or for this time. Seconds.
_MAX_SUSPENSION = 0.05


class Consumer:
    """One thread calls `step`, and `shut_down` at the end: it owns the connection and makes every acknowledgement."""

    def __init__(
        self, context: WorkerContext, broker: Broker, launcher: Launcher, thread_pool: LaunchThreadPool
    ) -> None:
        self._context = context
        self._broker = broker
        self._launcher = launcher
        self._thread_pool = thread_pool
        self._queues = list(context.queues)
        concurrency, rate = context.config.concurrency, context.config.run_task_rate
        #: How many messages of one queue may wait here for a thread: those launched within about a second.
        self._max_waiting = concurrency if rate <= 0 else max(2, min(concurrency, int(rate)))
        self._prefetch = concurrency + len(self._queues) * self._max_waiting
        self._consumer: RequestConsumer | None = None
        self._suspended: dict[str, float] = {}  # queue -> since when
        self._undecodable: deque[tuple[str, bytes, str]] = deque(maxlen=_MAX_UNDECODABLE)
        self._restored_at = float("-inf")
        self._drained_queues: set[str] = set()

    def is_drained(self, queue: str) -> bool:
        """Return whether no message will come: a drain found the queue empty, or the broker could not be reached."""
        return queue in self._drained_queues

    def step(self) -> float:
        """Drain once; return the seconds until the next drain."""
        try:
            consumer = self._consumer or self._connect()
            self._flush_undecodable()
            room = self._suspend_full_queues(consumer)
            self._restore_unacked(consumer)
            if len(self._suspended) == len(self._queues):
                consumer.drain(0.0)
                may_launch = any(map(self._context.admission.may_launch, self._queues))
                return _FULL_INTERVAL if may_launch else _BLOCKED_INTERVAL
            if not consumer.drain(_DRAIN_TIMEOUT, room):
                # A queue that is suspended, or whose messages wait here, may have more.
                for queue in set(self._queues) - self._suspended.keys():
                    if not self._thread_pool.waiting(queue, JobKind.MESSAGE):
                        self._drained_queues.add(queue)
        except (BrokerUnavailable, MissingRight):
            self._drained_queues = set(self._queues)
            self.close()
            raise
        return 0.0

    def close(self) -> None:
        """Close the connection; what is not acknowledged goes back to the broker."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def shut_down(self, timeout: float) -> None:
        """Take nothing more, acknowledge until no job is outstanding or `timeout` seconds are over, and close."""
        deadline = time.monotonic() + timeout
        try:
            self._suspend_all()
            self._thread_pool.drop_all()
            while self._thread_pool.outstanding and time.monotonic() < deadline:
                if self._consumer is not None:
                    self._consumer.drain(0.02)
                self._thread_pool.wait_until_idle(0.005)  # with every queue suspended a drain does not wait
            self._flush_undecodable()
        except (BrokerUnavailable, LedgerUnavailable, MissingRight):
            # The broker gives what is not acknowledged to other workers; outstanding calls still end.
            self._thread_pool.wait_until_idle(max(0.0, deadline - time.monotonic()))
        self.close()

    def _suspend_all(self) -> None:
        if self._consumer is not None:
            for queue in set(self._queues) - self._suspended.keys():
                self._consumer.suspend(queue)
        self._suspended = dict.fromkeys(self._queues, self._context.monotonic())

    def _connect(self) -> RequestConsumer:
        self._consumer = self._broker.consume_requests(
            self._queues, self._prefetch, self._on_delivery, self._on_undecodable
        )
        self._suspended = {}
        return self._consumer

    def _on_delivery(self, delivery: Delivery) -> None:
        queue = delivery.queue
        self._drained_queues.discard(queue)
        rate_limit = self._context.rate_limit_for(queue)
        priority = envelope.read_priority(delivery.body)
        handle = partial(self._handle, delivery)
        crash_point("consumer.received")
        job = Job(handle, JobKind.MESSAGE, queue, priority, rate_limit, delivery.requeue_at_front)
        self._thread_pool.submit(first_try(job, self._context, handle))

    def _handle(self, delivery: Delivery, waiting_job: Job | None = None) -> None:
        """Acknowledge or requeue the message in any case, else the broker would deliver less and less.

        `waiting_job` is submitted when no runner is idle: then no token of a call was taken.
        """
        if self._context.wait_for_stop(0.0):  # the worker stops: other workers take what is not begun
            _requeue(delivery)
            return
        try:
            is_handled = self._launcher.handle_message(delivery, may_call=waiting_job is None)
        except Exception:
            self._context.wait_for_stop(_REQUEUE_DELAY)
            _requeue(delivery)
            raise
        if is_handled is None and waiting_job is not None:
            self._context.admission.launch_over(delivery.queue)
            self._thread_pool.submit(waiting_job)
            return
        if is_handled:
            crash_point("consumer.handled")
            delivery.ack()
            return
        if not self._context.circuit_breakers.is_open(delivery.queue):  # else the next step suspends the queue
            self._context.wait_for_stop(_REQUEUE_DELAY)
        _requeue(delivery)

    def _on_undecodable(self, queue: str, raw: bytes, reason: str) -> None:
        """Keep the element until the ledger has stored it: the broker does not have it any more."""
        self._undecodable.append((queue, raw, reason))
        crash_point("consumer.undecodable")
        self._flush_undecodable()

    def _flush_undecodable(self) -> None:
        while self._undecodable:
            try:
                self._launcher.completion.add_dead_letter(*self._undecodable[0])
            except (LedgerUnavailable, MissingRight):
                return  # the next step tries again
            self._undecodable.popleft()

    def _suspend_full_queues(self, consumer: RequestConsumer) -> dict[str, int]:
        """Suspend and resume queues, so that the rest stays in the broker, in order and for other workers.

        Returns:
            For how many messages of each queue there is room.
        """
        rooms = {}
        for queue in self._queues:
            waiting = self._thread_pool.waiting(queue, JobKind.MESSAGE)
            room = rooms[queue] = int(min(self._max_waiting, self._context.admission.available(queue))) - waiting
            if room <= 0 and queue not in self._suspended:
                consumer.suspend(queue)
                self._suspended[queue] = self._context.monotonic()
                self._drained_queues.discard(queue)
            elif room > 0 and queue in self._suspended and self._may_resume(queue, waiting):
                consumer.resume(queue)
                del self._suspended[queue]
            if waiting and not self._context.admission.may_launch(queue):
                self._thread_pool.drop(queue, JobKind.MESSAGE)
        return rooms

    def _may_resume(self, queue: str, waiting: int) -> bool:
        """Return whether half of the waiting messages are gone, or the queue was suspended for long enough."""
        has_waited = self._context.monotonic() - self._suspended[queue] >= _MAX_SUSPENSION
        return has_waited or 2 * waiting <= self._max_waiting

    def _restore_unacked(self, consumer: RequestConsumer) -> None:
        now = self._context.monotonic()
        if now - self._restored_at >= self._context.config.visibility_timeout / 6:
            self._restored_at = float("-inf") if consumer.restore_expired() else now


def _requeue(delivery: Delivery) -> None:
    crash_point("consumer.requeueing")
    delivery.requeue()
