"""What workers share in the in-memory ledger beside the records."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from ecs_queue.core.bucket import Bucket
from ecs_queue.core.flow import Flow, Note
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.ledger.base import DeadLetter, WorkerInfo
from ecs_queue.ledger.letters import Letters


class SharedState:
    """Token buckets, pauses, bodies in hand, dead letters, heartbeats, events: one half of `Ledger`. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, Record] = {}
        self._look_at: dict[str, float] = {}  # live records: when somebody must look next
        self._buckets: dict[str, Bucket] = {}
        self._flows: dict[str, Flow] = {}
        self._paused: dict[str, float] = {}
        self._in_hand: defaultdict[str, int] = defaultdict(int)
        self._letters = Letters()
        self._workers: dict[str, tuple[WorkerInfo, float]] = {}

    def now(self) -> float:
        """The clock that was handed in, to the millisecond."""
        return round(self._clock(), 3)

    def take(self, bucket: str, want: int, rate: float, burst: int, reserve: int = 0) -> tuple[int, float]:
        """See `Ledger.take`."""
        with self._lock:
            now = self.now()
            return self._buckets.setdefault(bucket, Bucket(float(burst), now)).take(want, rate, burst, reserve, now)

    def throttled(self, bucket: str) -> float:
        """See `Ledger.throttled`."""
        with self._lock:
            now = self.now()
            return self._buckets.setdefault(bucket, Bucket(0.0, now)).throttled(now)

    def pause(self, queues: Sequence[str]) -> None:
        """See `Ledger.pause`."""
        with self._lock:
            for queue in queues:
                self._paused.setdefault(queue, self.now())

    def resume(self, queues: Sequence[str]) -> None:
        """See `Ledger.resume`."""
        with self._lock:
            for queue in queues:
                self._paused.pop(queue, None)

    def paused(self) -> dict[str, float]:
        """See `Ledger.paused`."""
        with self._lock:
            return dict(self._paused)

    def hold(self, nonce: str) -> int:
        """See `Ledger.hold`."""
        with self._lock:
            self._in_hand[nonce] += 1
            return self._in_hand[nonce]

    def let_go(self, nonce: str) -> None:
        """See `Ledger.let_go`."""
        with self._lock:
            self._in_hand.pop(nonce, None)

    def bury(self, letter: DeadLetter) -> None:
        """See `Ledger.bury`."""
        with self._lock:
            self._letters.bury(letter, self.now())

    def dead(self, limit: int, before: DeadLetter | None = None) -> list[DeadLetter]:
        """See `Ledger.dead`."""
        with self._lock:
            return self._letters.newest(limit, before)

    def letters(self, keys: Sequence[str]) -> list[DeadLetter | None]:
        """See `Ledger.letters`."""
        with self._lock:
            return [self._letters.get(key) for key in keys]

    def discard(self, keys: Sequence[str]) -> list[bool]:
        """See `Ledger.discard`."""
        with self._lock:
            return [self._letters.drop(key) for key in keys]

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
