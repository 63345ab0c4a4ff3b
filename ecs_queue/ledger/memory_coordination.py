"""What workers share in the in-memory ledger besides the records."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from ecs_queue.ledger.broken_items import BrokenItem, BrokenKind
from ecs_queue.ledger.entries import DeadLetter, WorkerInfo, count_keys_by_queue
from ecs_queue.protocol.capacity_fallback import CapacityReport, CapacityState
from ecs_queue.protocol.event_health import EventFact, EventHealth
from ecs_queue.protocol.settings import (
    BROKEN_CHECK_SECONDS,
    MAX_CLOCK_JITTER,
    MAX_DEAD_LETTER_AGE,
    MAX_DEAD_LETTER_BYTES,
    MAX_DEAD_LETTERS,
)
from ecs_queue.protocol.token_bucket import TokenBucket

_Entry = TypeVar("_Entry")


class MemoryCoordination:
    """The roles of `Ledger` that do not concern requests, except for `LedgerServer`'s checks. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._buckets: dict[str, TokenBucket] = {}
        self._capacity: dict[str, CapacityState] = {}
        self._event_health: dict[str, EventHealth] = {}
        self._paused_since: dict[str, float] = {}
        self._open_deliveries: defaultdict[str, int] = defaultdict(int)
        self._last_delivery: dict[str, str] = {}
        self._dead_letters: dict[str, DeadLetter] = {}
        self._dead_letter_bytes = 0
        self._workers: dict[str, tuple[WorkerInfo, float]] = {}
        self._broken: dict[tuple[str, str], BrokenItem] = {}
        self._check_at: dict[tuple[str, str], float] = {}

    def now(self) -> float:
        """See `Ledger.now`. To the millisecond."""
        return round(self._clock(), 3)

    def take_tokens(self, bucket: str, want: int, rate: float, burst: int, reserve: int = 0) -> tuple[int, float]:
        """See `Ledger.take_tokens`."""
        with self._lock:
            now = self.now()
            shared = self._buckets.setdefault(bucket, TokenBucket(float(burst), now))
            return shared.take(want, rate, burst, reserve, now)

    def record_throttle(self, bucket: str) -> float:
        """See `Ledger.record_throttle`."""
        with self._lock:
            now = self.now()
            return self._buckets.setdefault(bucket, TokenBucket(0.0, now)).record_throttle(now)

    def report_capacity(self, queue: str, report: CapacityReport) -> CapacityState:
        """See `Ledger.report_capacity`."""
        with self._lock:
            state = self._capacity.setdefault(queue, CapacityState())
            state.note(report, self.now())
            return msgspec.structs.replace(state)

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
            sound = self._sound_entries(BrokenKind.PAUSE, self._paused_since)
            return {queue: sound.get(queue, self.now()) for queue in self._paused_since}

    def begin_delivery(self, nonce: str, delivery: str) -> int:
        """See `Ledger.begin_delivery`."""
        with self._lock:
            if self._last_delivery.get(nonce) != delivery:
                self._last_delivery[nonce] = delivery
                self._open_deliveries[nonce] += 1
            return self._open_deliveries[nonce]

    def end_delivery(self, nonce: str) -> None:
        """See `Ledger.end_delivery`."""
        with self._lock:
            self._open_deliveries.pop(nonce, None)
            self._last_delivery.pop(nonce, None)

    def add_dead_letter(self, dead_letter: DeadLetter) -> None:
        """See `Ledger.add_dead_letter`."""
        with self._lock:
            if dead_letter.key not in self._dead_letters:
                # Each a little later than the one before, so that the times give the order in which they were added.
                newest = max(map(_added_at, self._sound_dead_letters().values()), default=0.0)
                added_at = max(self.now(), round(newest + 1e-6, 6))
                self._dead_letters[dead_letter.key] = msgspec.structs.replace(dead_letter, added_at=added_at)
                self._dead_letter_bytes += _stored_size(dead_letter)
                self._trim_dead_letters()

    def list_dead_letters(self, limit: int, before: DeadLetter | None = None) -> list[DeadLetter]:
        """See `Ledger.list_dead_letters`."""
        with self._lock:
            dead_letters = sorted(self._sound_dead_letters().values(), key=_added_at, reverse=True)
            return [each for each in dead_letters if before is None or each.added_at < before.added_at][:limit]

    def get_dead_letters(self, keys: Sequence[str]) -> list[DeadLetter | None]:
        """See `Ledger.get_dead_letters`."""
        with self._lock:
            return list(map(self._sound_dead_letters().get, keys))

    def delete_dead_letters(self, keys: Sequence[str]) -> list[bool]:
        """See `Ledger.delete_dead_letters`."""
        with self._lock:
            return [self._delete_dead_letter(key) for key in keys]

    def count_dead_letters(self) -> dict[str, int]:
        """See `Ledger.count_dead_letters`."""
        with self._lock:
            return count_keys_by_queue(self._sound_dead_letters())

    def total_dead_letters(self) -> int:
        """See `Ledger.total_dead_letters`."""
        with self._lock:
            return len(self._sound_dead_letters())

    def _delete_dead_letter(self, key: str) -> bool:
        dead_letter = self._dead_letters.pop(key, None)
        if isinstance(dead_letter, DeadLetter):
            self._dead_letter_bytes -= _stored_size(dead_letter)
        return dead_letter is not None

    def _trim_dead_letters(self) -> None:
        """Drop the oldest beyond a bound."""
        while sound := self._sound_dead_letters():
            oldest, number = min(sound.values(), key=_added_at), len(self._dead_letters)
            is_over = number > MAX_DEAD_LETTERS or (self._dead_letter_bytes > MAX_DEAD_LETTER_BYTES and number > 1)
            if not is_over and oldest.added_at > self.now() - MAX_DEAD_LETTER_AGE:
                return
            self._delete_dead_letter(oldest.key)

    def heartbeat(self, info: WorkerInfo, ttl: float) -> None:
        """See `Ledger.heartbeat`."""
        with self._lock:
            self._workers[info.name] = (msgspec.structs.replace(info, last_seen_at=self.now()), self.now() + ttl)

    def list_workers(self) -> list[WorkerInfo]:
        """See `Ledger.list_workers`."""
        with self._lock:
            present = self._sound_entries(BrokenKind.WORKER, self._workers).values()
            return sorted((info for info, at in present if self._is_present(info, at)), key=lambda info: info.name)

    def _is_present(self, info: WorkerInfo, forget_at: float) -> bool:
        """A heartbeat from before the clock went back counts no more: a live worker sends the next one in a moment."""
        return forget_at > self.now() and info.last_seen_at <= self.now() + MAX_CLOCK_JITTER

    def record_event_facts(self, facts: Sequence[EventFact]) -> None:
        """See `Ledger.record_event_facts`."""
        with self._lock:
            for fact in facts:
                health = self._event_health.get(fact.source, EventHealth())
                at = max(getattr(health, fact.kind), fact.at)
                self._event_health[fact.source] = msgspec.structs.replace(health, **{fact.kind.value: at})

    def get_event_health(self) -> dict[str, EventHealth]:
        """See `Ledger.get_event_health`."""
        with self._lock:
            return dict(self._event_health)

    def _is_worker_alive(self, name: str, since: float) -> bool:
        """Whether a worker is registered, and by a process that started before `since`, not by a later one."""
        found = self._sound_entries(BrokenKind.WORKER, self._workers).get(name)
        return found is not None and self._is_present(*found) and found[0].started_at <= since

    def _sound_dead_letters(self) -> dict[str, DeadLetter]:
        return self._sound_entries(BrokenKind.DEAD_LETTER, self._dead_letters)

    def _sound_entries(self, kind: BrokenKind, entries: dict[str, _Entry]) -> dict[str, _Entry]:
        """The entries that can be used; the others are listed as broken."""
        sound = {name: entry for name, entry in entries.items() if is_sound_entry(kind, name, entry)}
        for name in entries.keys() - sound.keys():
            self._note_broken(kind, name, "it cannot be decoded")
        return sound

    def _note_broken(self, kind: BrokenKind, name: str, reason: str) -> None:
        if (kind.value, name) not in self._broken:
            item = BrokenItem(kind=kind.value, name=name, since=self.now(), reason=reason)
            self._broken[kind.value, name] = item
            self._check_at[kind.value, name] = self.now() + BROKEN_CHECK_SECONDS


def is_sound_entry(kind: str, name: str, entry: Any) -> bool:
    """Return whether a dead letter, a heartbeat or a pause can be used."""
    if kind == BrokenKind.DEAD_LETTER:
        return isinstance(entry, DeadLetter) and entry.key == name
    if kind == BrokenKind.WORKER:
        return isinstance(entry, tuple) and isinstance(entry[0], WorkerInfo) and entry[0].name == name
    return isinstance(entry, float)


def _added_at(dead_letter: DeadLetter) -> float:
    return dead_letter.added_at


def _stored_size(dead_letter: DeadLetter) -> int:
    """Bytes as Redis counts them: without the time at which it was added."""
    return len(msgspec.json.encode(msgspec.structs.replace(dead_letter, added_at=0.0)))
