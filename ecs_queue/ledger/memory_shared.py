"""What the in-memory ledger stands on, and what workers tell it of themselves and of ECS's events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import msgspec

from ecs_queue.core.flow import Flow, Note
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.ledger.base import WorkerInfo


class MemoryShared:
    """A part of `MemoryLedger`. `clock`: seconds since the epoch."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, Record] = {}
        self._look_at: dict[str, float] = {}  # live records: when somebody must look next
        self._flows: dict[str, Flow] = {}
        self._workers: dict[str, tuple[WorkerInfo, float]] = {}

    def now(self) -> float:
        """The clock that was handed in, to the millisecond."""
        return round(self._clock(), 3)

    def heartbeat(self, info: WorkerInfo, ttl: float) -> None:
        """See `Ledger.heartbeat`."""
        with self._lock:
            self._workers[info.name] = (msgspec.structs.replace(info, seen_at=self.now()), self.now() + ttl)

    def workers(self) -> list[WorkerInfo]:
        """See `Ledger.workers`."""
        with self._lock:
            now = self.now()
            return sorted((info for info, until in self._workers.values() if until > now), key=lambda i: i.name)

    def note_events(self, notes: Sequence[Note]) -> None:
        """See `Ledger.note_events`."""
        with self._lock:
            for note in notes:
                flow = self._flows.get(note.source, Flow())
                at = max(getattr(flow, note.fact), note.at)
                self._flows[note.source] = msgspec.structs.replace(flow, **{note.fact.value: at})

    def event_flows(self) -> dict[str, Flow]:
        """See `Ledger.event_flows`."""
        with self._lock:
            return dict(self._flows)

    def hasten(self, within: float, limit: int) -> int:
        """See `Ledger.hasten`."""
        with self._lock:
            now = self.now()
            due = ((at, key) for key, at in self._look_at.items() if at > now + within and self._is_due(key))
            later = sorted(due, reverse=True)[:limit]
            found = [key for _, key in later if self._records[key].state is State.LAUNCHED]
            for number, record_id in enumerate(found, 1):
                self._look_at[record_id] = round(now + within * number / len(found), 3)
            return len(found)

    def _is_due(self, record_id: str) -> bool:
        """Whether the record stands in the index `due`."""
        return self._records[record_id].state in (State.LAUNCHING, State.LAUNCHED)
