"""AWS's request quotas, shared by all workers through token buckets in the ledger.

RunTask and StopTask draw on one bucket, DescribeTasks and ListTasks on another, each per account and Region as far as
a target tells them apart. RunTask leaves the last tokens of its bucket to StopTask. Nothing here waits: who lacks a
token is told when to ask again, and does something else meanwhile.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ecs_queue.ecs.clients import Target
from ecs_queue.ledger.base import Ledger
from ecs_queue.telemetry import Telemetry

#: The most tokens one trip to the ledger brings, so that a worker never sits on many.
BATCH = 16
#: Tokens that were not used for so long are dropped: kept, they would come on top of a later burst. Seconds.
_FRESH = 1.0


def reserve_of(burst: int) -> int:
    """How many tokens of the launch bucket RunTask leaves to StopTask: a twentieth, at least one if there are two."""
    return min(burst - 1, max(1, burst // 20))


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to calls of one kind to one account and Region, `rate` a second; `reserve` tokens are others'.

    `fresh`: for how many seconds a worker may keep a token that it does not use.
    """

    bucket: str
    rate: float
    burst: int
    reserve: int = 0
    fresh: float = _FRESH


class Tokens:
    """What this worker holds of the shared buckets. Thread-safe; no lock is held during a trip to the ledger."""

    def __init__(self, ledger: Ledger, monotonic: Callable[[], float], telemetry: Telemetry) -> None:
        self._ledger = ledger
        self._monotonic = monotonic
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._stock: dict[Permit, tuple[int, float]] = {}  # tokens, and since when they are here
        self._ask_at: dict[Permit, float] = {}

    def spend(self, permit: Permit | None) -> bool:
        """Use a token that is here. None: the call needs none."""
        if permit is None:
            return True
        with self._lock:
            tokens, since = self._stock.get(permit, (0, 0.0))
            if not tokens or self._monotonic() - since > permit.fresh:
                self._stock.pop(permit, None)
                return False
            self._stock[permit] = (tokens - 1, since)
            return True

    def wait(self, permit: Permit) -> float:
        """Seconds until asking the ledger is of use."""
        return max(0.0, self._ask_at.get(permit, 0.0) - self._monotonic())

    def fetch(self, permit: Permit, want: int) -> int:
        """One trip to the ledger; how many tokens it brought."""
        want = max(1, min(want, BATCH, permit.burst))
        granted, delay = self._take(permit, want, permit.reserve)
        with self._lock:
            now = self._monotonic()
            if granted:
                tokens, since = self._stock.get(permit, (0, now))
                kept = tokens if now - since <= permit.fresh else 0
                self._stock[permit] = (kept + granted, now)
            # Not before a token is there; a batch would have to wait for its last one.
            self._ask_at[permit] = now + max(delay, 0.001) if granted < want else now
        return granted

    def postpone(self, permit: Permit, seconds: float) -> None:
        """Do not ask the ledger for so long."""
        with self._lock:
            self._ask_at[permit] = self._monotonic() + seconds

    def give_back(self, permit: Permit) -> None:
        """The call was not made after all."""
        with self._lock:
            now = self._monotonic()
            tokens, since = self._stock.get(permit, (0, now))
            self._stock[permit] = (tokens + 1, since) if now - since <= permit.fresh else (1, now)

    def charge(self, permit: Permit, calls: int) -> None:
        """Calls that are made in any case: what is lacking is owed, and later calls wait for it."""
        self._take(permit, calls, -permit.burst)

    def throttled(self, permit: Permit) -> None:
        """AWS has refused a call: the rate drops for all workers, and what is held here is worth nothing."""
        share = self._ledger.throttled(permit.bucket)
        with self._lock:
            for held in [held for held in self._stock if held.bucket == permit.bucket]:
                del self._stock[held]
        if share:
            calls = permit.bucket.partition(":")[0]
            self._telemetry.emit("quota.lowered", calls=calls, rate=round(permit.rate * share, 2))

    def _take(self, permit: Permit, want: int, reserve: int) -> tuple[int, float]:
        return self._ledger.take(permit.bucket, want, permit.rate, permit.burst, reserve)


class Quota:
    """One kind of calls: `rate` a second with `burst`; rate 0: no limit. Thread-safe. See `Permit`."""

    def __init__(
        self, tokens: Tokens, name: str, rate: float, burst: int, reserve: int = 0, fresh: float = _FRESH
    ) -> None:
        self._tokens = tokens
        self._name = name
        self._rate = rate
        self._burst = burst
        self._reserve = reserve
        self._fresh = fresh

    def permit(self, target: Target) -> Permit | None:
        """What a call to this target needs; None: nothing."""
        if self._rate <= 0:
            return None
        account = f"{target.region}|{target.endpoint_url or ''}|{target.role_arn or ''}|{target.conn_id or ''}"
        bucket = f"{self._name}:{hashlib.sha256(account.encode()).hexdigest()[:12]}"
        return Permit(bucket, self._rate, self._burst, self._reserve, self._fresh)

    def take(self, target: Target, ahead: int = 1) -> float:
        """The right to one call now: 0.0 if it is given, else seconds until asking again is of use.

        `ahead`: so many calls will be asked for in a row; one trip to the ledger may serve them all.
        """
        permit = self.permit(target)
        if permit is None or self._tokens.spend(permit):
            return 0.0
        wait = self._tokens.wait(permit)
        if wait > 0:
            return wait
        self._tokens.fetch(permit, ahead)
        return 0.0 if self._tokens.spend(permit) else max(self._tokens.wait(permit), 0.001)

    def charge(self, target: Target, calls: int = 1) -> None:
        """See `Tokens.charge`."""
        permit = self.permit(target)
        if permit is not None:
            self._tokens.charge(permit, calls)

    def give_back(self, target: Target) -> None:
        """See `Tokens.give_back`."""
        permit = self.permit(target)
        if permit is not None:
            self._tokens.give_back(permit)

    def throttled(self, target: Target) -> None:
        """See `Tokens.throttled`."""
        permit = self.permit(target)
        if permit is not None:
            self._tokens.throttled(permit)
