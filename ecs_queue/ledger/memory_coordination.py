"""What workers share in the in-memory ledger beside the records."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from ecs_queue.ledger.base import DeadLetter, WorkerInfo
from ecs_queue.ledger.dead_letters import DeadLetterStore
from ecs_queue.protocol.event_health import EventFact, EventHealth
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.protocol.token_bucket import TokenBucket


class MemoryCoordination:
    """Token buckets, pauses, bodies in hand, dead letters, heartbeats, events: one half of `Ledger`. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, Record] = {}
        self._due_at: dict[str, float] = {}  # live records: when somebody must look next
        self._buckets: dict[str, TokenBucket] = {}
        self._event_health: dict[str, EventHealth] = {}
        self._paused_since: dict[str, float] = {}
        self._open_deliveries: defaultdict[str, int] = defaultdict(int)
        self._dead_letters = DeadLetterStore()
        self._workers: dict[str, tuple[WorkerInfo, float]] = {}

    def now(self) -> float:
        """The clock that was handed in, to the millisecond."""
        return round(self._clock(), 3)

    def take_tokens(self, bucket: str, want: int, rate: float, burst: int, reserve: int = 0) -> tuple[int, float]:
        """See `Ledger.take_tokens`."""
        with self._lock:
            now = self.now()
            return self._buckets.setdefault(bucket, TokenBucket(float(burst), now)).take(
                want, rate, burst, reserve, now
            )

    def record_throttle(self, bucket: str) -> float:
        """See `Ledger.record_throttle`."""
        with self._lock:
            now = self.now()
            return self._buckets.setdefault(bucket, TokenBucket(0.0, now)).record_throttle(now)

    def pause_queues(self, queues: Sequence[str]) -> None:
        """See `Ledger.pause_queues`."""
        with self._lock:
            for queue in queues:
                self._paused_since.setdefault(queue, self.now())

    def resume_queues(self, queues: Sequence[str]) -> None:
        """See `Ledger.resume_queues`."""
        with self._lock:
            for queue in queues:
                self._paused_since.pop(queue, None)

    def list_paused_queues(self) -> dict[str, float]:
        """See `Ledger.list_paused_queues`."""
        with self._lock:
            return dict(self._paused_since)

    def begin_delivery(self, nonce: str) -> int:
        """See `Ledger.begin_delivery`."""
        with self._lock:
            self._open_deliveries[nonce] += 1
            return self._open_deliveries[nonce]

    def end_delivery(self, nonce: str) -> None:
        """See `Ledger.end_delivery`."""
        with self._lock:
            self._open_deliveries.pop(nonce, None)

    def add_dead_letter(self, letter: DeadLetter) -> None:
        """See `Ledger.add_dead_letter`."""
        with self._lock:
            self._dead_letters.add(letter, self.now())

    def list_dead_letters(self, limit: int, before: DeadLetter | None = None) -> list[DeadLetter]:
        """See `Ledger.list_dead_letters`."""
        with self._lock:
            return self._dead_letters.list_newest(limit, before)

    def get_dead_letters(self, keys: Sequence[str]) -> list[DeadLetter | None]:
        """See `Ledger.get_dead_letters`."""
        with self._lock:
            return [self._dead_letters.get(key) for key in keys]

    def delete_dead_letters(self, keys: Sequence[str]) -> list[bool]:
        """See `Ledger.delete_dead_letters`."""
        with self._lock:
            return [self._dead_letters.delete(key) for key in keys]

    def heartbeat(self, info: WorkerInfo, ttl: float) -> None:
        """See `Ledger.heartbeat`."""
        with self._lock:
            self._workers[info.name] = (msgspec.structs.replace(info, last_seen_at=self.now()), self.now() + ttl)

    def list_workers(self) -> list[WorkerInfo]:
        """See `Ledger.list_workers`."""
        with self._lock:
            now = self.now()
            return sorted((info for info, until in self._workers.values() if until > now), key=lambda i: i.name)

    def record_event_facts(self, notes: Sequence[EventFact]) -> None:
        """See `Ledger.record_event_facts`."""
        with self._lock:
            for note in notes:
                flow = self._event_health.get(note.source, EventHealth())
                at = max(getattr(flow, note.kind), note.at)
                self._event_health[note.source] = msgspec.structs.replace(flow, **{note.kind.value: at})

    def get_event_health(self) -> dict[str, EventHealth]:
        """See `Ledger.get_event_health`."""
        with self._lock:
            return dict(self._event_health)

    def poll_soon(self, within: float, limit: int) -> int:
        """See `Ledger.poll_soon`."""
        with self._lock:
            now = self.now()
            due = ((at, key) for key, at in self._due_at.items() if at > now + within and self._is_due(key))
            later = sorted(due, reverse=True)[:limit]
            found = [key for _, key in later if self._records[key].state is State.LAUNCHED]
            for number, record_id in enumerate(found, 1):
                self._due_at[record_id] = round(now + within * number / len(found), 3)
            return len(found)

    def _is_due(self, record_id: str) -> bool:
        """Whether the record stands in the index `due`."""
        return self._records[record_id].state in (State.LAUNCHING, State.LAUNCHED)
