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
MAX_FETCH = 16
#: Tokens that were not used for so long are dropped: kept, they would come on top of a later burst. Seconds.
_TOKEN_TTL = 1.0


def stop_task_reserve(burst: int) -> int:
    """How many tokens of the launch bucket RunTask leaves to StopTask: a twentieth, at least one if there are two."""
    return min(burst - 1, max(1, burst // 20))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The right to calls of one kind to one account and Region, `rate` a second; `reserve` tokens are others'.

    `fresh`: for how many seconds a worker may keep a token that it does not use.
    """

    bucket: str
    rate: float
    burst: int
    reserve: int = 0
    token_ttl: float = _TOKEN_TTL


class TokenCache:
    """What this worker holds of the shared buckets. Thread-safe; no lock is held during a trip to the ledger."""

    def __init__(self, ledger: Ledger, monotonic: Callable[[], float], telemetry: Telemetry) -> None:
        self._ledger = ledger
        self._monotonic = monotonic
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._tokens: dict[RateLimit, tuple[int, float]] = {}  # tokens, and since when they are here
        self._fetch_at: dict[RateLimit, float] = {}

    def spend(self, rate_limit: RateLimit | None) -> bool:
        """Use a token that is here. None: the call needs none."""
        if rate_limit is None:
            return True
        with self._lock:
            tokens, since = self._tokens.get(rate_limit, (0, 0.0))
            if not tokens or self._monotonic() - since > rate_limit.token_ttl:
                self._tokens.pop(rate_limit, None)
                return False
            self._tokens[rate_limit] = (tokens - 1, since)
            return True

    def fetch_delay(self, rate_limit: RateLimit) -> float:
        """Seconds until asking the ledger is of use."""
        return max(0.0, self._fetch_at.get(rate_limit, 0.0) - self._monotonic())

    def fetch(self, rate_limit: RateLimit, count: int) -> int:
        """One trip to the ledger; how many tokens it brought."""
        count = max(1, min(count, MAX_FETCH, rate_limit.burst))
        granted, delay = self._take_from_ledger(rate_limit, count, rate_limit.reserve)
        with self._lock:
            now = self._monotonic()
            if granted:
                tokens, since = self._tokens.get(rate_limit, (0, now))
                kept = tokens if now - since <= rate_limit.token_ttl else 0
                self._tokens[rate_limit] = (kept + granted, now)
            # Not before a token is there; a batch would have to wait for its last one.
            self._fetch_at[rate_limit] = now + max(delay, 0.001) if granted < count else now
        return granted

    def delay_fetch(self, rate_limit: RateLimit, seconds: float) -> None:
        """Do not ask the ledger for so long."""
        with self._lock:
            self._fetch_at[rate_limit] = self._monotonic() + seconds

    def return_token(self, rate_limit: RateLimit) -> None:
        """The call was not made after all."""
        with self._lock:
            now = self._monotonic()
            tokens, since = self._tokens.get(rate_limit, (0, now))
            self._tokens[rate_limit] = (tokens + 1, since) if now - since <= rate_limit.token_ttl else (1, now)

    def charge(self, rate_limit: RateLimit, calls: int) -> None:
        """Calls that are made in any case: what is lacking is owed, and later calls wait for it."""
        self._take_from_ledger(rate_limit, calls, -rate_limit.burst)

    def report_throttled(self, rate_limit: RateLimit) -> None:
        """AWS has refused a call: the rate drops for all workers, and what is held here is worth nothing."""
        share = self._ledger.record_throttle(rate_limit.bucket)
        with self._lock:
            for held in [held for held in self._tokens if held.bucket == rate_limit.bucket]:
                del self._tokens[held]
        if share:
            calls = rate_limit.bucket.partition(":")[0]
            self._telemetry.emit("rate_limit.lowered", limiter=calls, rate=round(rate_limit.rate * share, 2))

    def _take_from_ledger(self, rate_limit: RateLimit, count: int, reserve: int) -> tuple[int, float]:
        return self._ledger.take_tokens(rate_limit.bucket, count, rate_limit.rate, rate_limit.burst, reserve)


class RateLimiter:
    """One kind of calls: `rate` a second with `burst`; rate 0: no limit. Thread-safe. See `Permit`."""

    def __init__(
        self,
        token_cache: TokenCache,
        name: str,
        rate: float,
        burst: int,
        reserve: int = 0,
        token_ttl: float = _TOKEN_TTL,
    ) -> None:
        self._token_cache = token_cache
        self._name = name
        self._rate = rate
        self._burst = burst
        self._reserve = reserve
        self._token_ttl = token_ttl

    def limit_for(self, target: Target) -> RateLimit | None:
        """What a call to this target needs; None: nothing."""
        if self._rate <= 0:
            return None
        account = f"{target.region}|{target.endpoint_url or ''}|{target.role_arn or ''}|{target.conn_id or ''}"
        bucket = f"{self._name}:{hashlib.sha256(account.encode()).hexdigest()[:12]}"
        return RateLimit(bucket, self._rate, self._burst, self._reserve, self._token_ttl)

    def try_acquire(self, target: Target, expected_calls: int = 1) -> float:
        """The right to one call now: 0.0 if it is given, else seconds until asking again is of use.

        `ahead`: so many calls will be asked for in a row; one trip to the ledger may serve them all.
        """
        permit = self.limit_for(target)
        if permit is None or self._token_cache.spend(permit):
            return 0.0
        wait = self._token_cache.fetch_delay(permit)
        if wait > 0:
            return wait
        self._token_cache.fetch(permit, expected_calls)
        return 0.0 if self._token_cache.spend(permit) else max(self._token_cache.fetch_delay(permit), 0.001)

    def charge(self, target: Target, calls: int = 1) -> None:
        """See `Tokens.charge`."""
        permit = self.limit_for(target)
        if permit is not None:
            self._token_cache.charge(permit, calls)

    def return_token(self, target: Target) -> None:
        """See `Tokens.give_back`."""
        permit = self.limit_for(target)
        if permit is not None:
            self._token_cache.return_token(permit)

    def report_throttled(self, target: Target) -> None:
        """See `Tokens.throttled`."""
        permit = self.limit_for(target)
        if permit is not None:
            self._token_cache.report_throttled(permit)
