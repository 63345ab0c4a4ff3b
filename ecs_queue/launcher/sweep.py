"""Finds what no message speaks of: due retries, requests whose message was lost, expired ones, old index entries.

It claims directly, and only when there are free slots: publishing again would multiply the messages of a backlog.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ecs_queue.core.record import Record
from ecs_queue.launcher.launch import Launcher, Parts
from ecs_queue.launcher.slots import Slots

_TICK = 0.5
_EXPIRED_AT_ONCE = 200
_PRUNED_AT_ONCE = 1000


class Sweeper:
    """`idle`: the consumer has found its queues empty; before, a silent record's message may only be waiting."""

    def __init__(
        self, parts: Parts, launcher: Launcher, slots: Slots, queues: Sequence[str], idle: Callable[[], bool]
    ) -> None:
        self._parts = parts
        self._launcher = launcher
        self._slots = slots
        self._queues = queues
        self._idle = idle

    def step(self) -> float:
        """One round; how many seconds to rest before the next."""
        ledger = self._parts.ledger
        for record_id in ledger.due_expired(_EXPIRED_AT_ONCE):
            self._launcher.expire(record_id)
        found = 0
        for queue in self._queues:
            if self._parts.circuits.is_open(queue):
                continue
            # A retry was submitted before most of a backlog, so it does not wait for that to be over.
            found += self._launch(partial(ledger.due_retries, queue), self._slots.room)
            if self._idle():
                found += self._launch(partial(ledger.due_silent, queue), self._slots.free)
        ledger.prune(_PRUNED_AT_ONCE)
        return 0.05 if found else _TICK

    def _launch(self, pop: Callable[[int], list[Record]], room: int) -> int:
        """A leased record that is not claimed comes due again, so nothing is popped without a slot for it."""
        records = pop(room) if room else []
        for record in records:
            self._slots.submit(partial(self._launcher.retry, record))
        return len(records)
