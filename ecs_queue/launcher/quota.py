"""AWS's request quotas, shared by all workers through token buckets in the ledger.

RunTask and StopTask draw on one bucket, DescribeTasks and ListTasks on another, each per account and Region as far as
a target tells them apart.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from ecs_queue.ecs.clients import Target
from ecs_queue.ledger.base import Ledger

#: The most tokens one trip to the ledger brings, so that a worker never sits on many.
_BATCH = 16
#: A wait for tokens is interrupted this often to look whether the worker stops. Seconds.
_LOOK_EVERY = 0.5


class Quota:
    """One kind of calls, `rate` a second with `burst`; rate 0: no limit. Thread-safe.

    Threads that wait together share one trip to the ledger; the first one fetches for all.
    """

    def __init__(self, ledger: Ledger, name: str, rate: float, burst: int, wait: Callable[[float], bool]) -> None:
        """`wait(seconds)` rests, and answers whether the worker is stopping."""
        self._ledger = ledger
        self._name = name
        self._rate = rate
        self._burst = burst
        self._wait = wait
        self._lock = threading.Lock()
        self._counting = threading.Lock()  # `_lock` is held during a trip to the ledger
        self._waiting = 0
        self._stock: dict[str, int] = {}

    def take(self, target: Target, patience: float = float("inf")) -> bool:
        """Wait for the right to make one call; False when the worker stops or `patience` seconds are over."""
        if self._rate <= 0:
            return True
        bucket = self._bucket(target)
        self._count_waiting(1)
        try:
            while True:
                with self._lock:
                    delay = self._take_or_delay(bucket)
                if delay <= 0:
                    return True
                patience -= delay
                if patience < 0 or self._wait(min(delay, _LOOK_EVERY)):
                    return False
        finally:
            self._count_waiting(-1)

    def give_back(self, target: Target) -> None:
        """The call was not made after all."""
        if self._rate > 0:
            with self._lock:
                bucket = self._bucket(target)
                self._stock[bucket] = self._stock.get(bucket, 0) + 1

    def _count_waiting(self, change: int) -> None:
        """So many tokens are worth fetching in one trip."""
        with self._counting:
            self._waiting += change

    def _take_or_delay(self, bucket: str) -> float:
        stock = self._stock.get(bucket, 0)
        delay = 0.0
        if not stock:
            want = max(1, min(self._waiting, _BATCH, self._burst))
            stock, delay = self._ledger.take(bucket, want, self._rate, self._burst)
        if stock:
            self._stock[bucket] = stock - 1
            return 0.0
        return max(delay, 0.001)

    def _bucket(self, target: Target) -> str:
        account = f"{target.region}|{target.endpoint_url or ''}|{target.role_arn or ''}|{target.conn_id or ''}"
        return f"{self._name}:{hashlib.sha256(account.encode()).hexdigest()[:12]}"
