"""Finds what no message speaks of: due retries, requests whose message was lost, expired ones, old index entries.

It claims directly, and only when there are free slots: publishing again would multiply the messages of a backlog.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ecs_queue.core import envelope
from ecs_queue.core.record import Record
from ecs_queue.crashpoints import reach
from ecs_queue.launcher.lanes import Job, JobKind
from ecs_queue.launcher.launch import Launcher
from ecs_queue.launcher.parts import Parts
from ecs_queue.launcher.slots import Slots

_TICK = 0.5
_EXPIRED_AT_ONCE = 200
_PRUNED_AT_ONCE = 1000


class Sweeper:
    """`idle(queue)`: the consumer has found the queue empty; before, a silent record's message may only be waiting."""

    def __init__(
        self, parts: Parts, launcher: Launcher, slots: Slots, queues: Sequence[str], idle: Callable[[str], bool]
    ) -> None:
        self._parts = parts
        self._launcher = launcher
        self._slots = slots
        self._queues = queues
        self._idle = idle

    def step(self) -> float:
        """One round; how many seconds to rest before the next."""
        ledger = self._parts.ledger
        expired = ledger.due_expired(_EXPIRED_AT_ONCE)
        if expired:
            reach("sweep.expired")
        for record_id in expired:
            self._launcher.expire(record_id)
        found = 0
        for queue in self._queues:
            # A retry was submitted before most of a backlog, so it does not wait for that to be over.
            found += self._launch(queue, partial(ledger.due_retries, queue), self._slots.room(queue, JobKind.RETRY))
            if self._idle(queue):
                found += self._launch(queue, partial(ledger.due_silent, queue), self._slots.free)
        ledger.prune(_PRUNED_AT_ONCE)
        return 0.05 if found else _TICK

    def _launch(self, queue: str, pop: Callable[[int], list[Record]], room: int) -> int:
        """A leased record that is not claimed comes due again, so nothing is popped without a slot for it."""
        waiting = self._slots.waiting(queue, JobKind.RETRY)
        room = int(min(room, self._parts.gates.room(queue) - waiting))
        records = pop(room) if room > 0 else []
        if records:
            reach("sweep.popped")
        for record in records:
            launch = partial(self._launcher.retry, record)
            priority = envelope.priority_of(record.request)
            self._slots.submit(Job(launch, JobKind.RETRY, queue, priority, self._parts.permit_for(queue)))
        return len(records)
