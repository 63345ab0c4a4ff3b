"""Finds records that no message names: due retries, lost messages, expired requests, old index entries.

The sweeper claims the records itself, and only for free threads. To publish messages again would multiply a backlog.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ecs_queue.crash_points import crash_point
from ecs_queue.messages import envelope
from ecs_queue.protocol.record import Record
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.fair_queue import Job, JobKind
from ecs_queue.worker.first_try import first_try
from ecs_queue.worker.launcher import Launcher
from ecs_queue.worker.thread_pool import LaunchThreadPool

_INTERVAL, _BUSY_INTERVAL = 0.5, 0.05
_EXPIRED_BATCH = 200
_PRUNE_BATCH = 1000


class Sweeper:
    """One thread calls `step`.

    `is_drained(queue)` says whether the consumer has found the queue empty: before that, the message of an unclaimed
    record may only be waiting in the broker.
    """

    def __init__(
        self, context: WorkerContext, launcher: Launcher, pool: LaunchThreadPool, is_drained: Callable[[str], bool]
    ) -> None:
        self._context = context
        self._launcher = launcher
        self._thread_pool = pool
        self._is_drained = is_drained

    def step(self) -> float:
        """Sweep once; return the seconds until the next round."""
        ledger, pool = self._context.ledger, self._thread_pool
        expired = ledger.lease_expired(_EXPIRED_BATCH)
        if expired:
            crash_point("sweeper.expired_leased")
        for record_id in expired:
            self._launcher.expire(record_id)
        found = 0
        for queue in self._context.queues:
            # A retry was submitted before most of a backlog, so it does not wait for that to be over.
            retries = partial(ledger.lease_due_retries, queue)
            found += self._submit_due(queue, retries, pool.remaining_capacity(queue, JobKind.RETRY))
            if self._is_drained(queue):
                found += self._submit_due(queue, partial(ledger.lease_unclaimed, queue), pool.free_threads)
        ledger.prune(_PRUNE_BATCH)
        return _BUSY_INTERVAL if found else _INTERVAL

    def _try_runner(self, record: Record, job: Job) -> None:
        """Give the request to an idle runner; if there is none, let it wait for the token of a call."""
        if not self._launcher.launch_queued(record, may_call=False):
            self._context.admission.launch_over(record.queue)
            self._thread_pool.submit(job)

    def _submit_due(self, queue: str, lease: Callable[[int], list[Record]], capacity: int) -> int:
        """Lease only what a thread is free for: a leased record that is not claimed has to come due again."""
        waiting = self._thread_pool.waiting(queue, JobKind.RETRY)
        capacity = int(min(capacity, self._context.admission.available(queue) - waiting))
        records = lease(capacity) if capacity > 0 else []
        if records:
            crash_point("sweeper.leased")
        for record in records:
            launch = partial(self._launcher.launch_queued, record)
            priority = envelope.read_priority(record.request)
            job = Job(launch, JobKind.RETRY, queue, priority, self._context.rate_limit_for(queue))
            self._thread_pool.submit(first_try(job, self._context, partial(self._try_runner, record)))
        return len(records)
