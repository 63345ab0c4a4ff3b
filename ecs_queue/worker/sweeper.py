"""Finds what no message speaks of: due retries, requests whose message was lost, expired ones, old index entries.

It claims directly, and only when there are free slots: publishing again would multiply the messages of a backlog.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ecs_queue.crash_points import crash_point
from ecs_queue.messages import envelope
from ecs_queue.protocol.record import Record
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.fair_queue import Job, JobKind
from ecs_queue.worker.launcher import Launcher
from ecs_queue.worker.thread_pool import LaunchThreadPool

_INTERVAL = 0.5
_EXPIRED_BATCH = 200
_PRUNE_BATCH = 1000


class Sweeper:
    """`idle(queue)`: the consumer has found the queue empty; before, a silent record's message may only be waiting."""

    def __init__(
        self,
        context: WorkerContext,
        launcher: Launcher,
        thread_pool: LaunchThreadPool,
        queues: Sequence[str],
        is_drained: Callable[[str], bool],
    ) -> None:
        self._context = context
        self._launcher = launcher
        self._thread_pool = thread_pool
        self._queues = queues
        self._is_drained = is_drained

    def step(self) -> float:
        """One round; how many seconds to rest before the next."""
        ledger = self._context.ledger
        expired = ledger.lease_expired(_EXPIRED_BATCH)
        if expired:
            crash_point("sweeper.expired_leased")
        for record_id in expired:
            self._launcher.expire(record_id)
        found = 0
        for queue in self._queues:
            # A retry was submitted before most of a backlog, so it does not wait for that to be over.
            found += self._submit_due(
                queue,
                partial(ledger.lease_due_retries, queue),
                self._thread_pool.remaining_capacity(queue, JobKind.RETRY),
            )
            if self._is_drained(queue):
                found += self._submit_due(queue, partial(ledger.lease_unclaimed, queue), self._thread_pool.free_threads)
        ledger.prune(_PRUNE_BATCH)
        return 0.05 if found else _INTERVAL

    def _submit_due(self, queue: str, pop: Callable[[int], list[Record]], capacity: int) -> int:
        """A leased record that is not claimed comes due again, so nothing is popped without a slot for it."""
        waiting = self._thread_pool.waiting(queue, JobKind.RETRY)
        capacity = int(min(capacity, self._context.admission.available(queue) - waiting))
        records = pop(capacity) if capacity > 0 else []
        if records:
            crash_point("sweeper.leased")
        for record in records:
            launch = partial(self._launcher.launch_queued, record)
            priority = envelope.read_priority(record.request)
            self._thread_pool.submit(Job(launch, JobKind.RETRY, queue, priority, self._context.rate_limit_for(queue)))
        return len(records)
