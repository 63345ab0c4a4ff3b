"""What workers share in the in-memory ledger beside the records."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from ecs_queue.core.bucket import Bucket
from ecs_queue.ledger.base import DeadLetter, WorkerInfo
from ecs_queue.ledger.letters import Letters


class SharedState:
    """Token buckets, pauses, bodies in hand, dead letters, heartbeats: the one half of `Ledger`. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._buckets: dict[str, Bucket] = {}
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
