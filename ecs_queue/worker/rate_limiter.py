"""AWS's request rates, shared by all workers through token buckets in the ledger.

RunTask and StopTask take tokens of one bucket, RunTask on Fargate Spot of a second one (`runtask.capacity`),
DescribeTasks and ListTasks of a third; each account and Region has its own, as far as a target identifies them. RunTask
leaves the last tokens of its bucket to StopTask. A launch of a queue with a `launch_rate` takes a token of its queue's
bucket, too. A call returns at once: with a token, or with the time after which to call again.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ecs_queue.ecs.clients import Target
from ecs_queue.ledger.base import TokenBuckets
from ecs_queue.telemetry import Telemetry

#: The largest number of tokens of one round trip to the ledger, so that a worker never holds many.
MAX_FETCH = 16
#: Tokens unused for this time are dropped: otherwise they would be added to a later burst. Seconds.
_TOKEN_TTL = 1.0


def stop_task_reserve(burst: int) -> int:
    """Return the tokens that RunTask leaves to StopTask: a twentieth of the burst, at least one if there are two."""
    return min(burst - 1, max(1, burst // 20))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The limit of one kind of calls to one account and Region.

    Attributes:
        bucket: The token bucket's name in the ledger.
        rate: Calls a second.
        burst: Size of the bucket: calls that may be made at once after a pause.
        reserve: Tokens of the bucket that these calls must leave.
        token_ttl: How long a worker may keep an unused token. Seconds.
        account: Of a queue's launches: the limit of its account, of which each launch needs a token, too.
    """

    bucket: str
    rate: float
    burst: int
    reserve: int = 0
    token_ttl: float = _TOKEN_TTL
    account: RateLimit | None = None


class TokenCache:
    """The tokens that this worker holds. Thread-safe; no lock is held during a round trip to the ledger."""

    def __init__(self, ledger: TokenBuckets, monotonic: Callable[[], float], telemetry: Telemetry) -> None:
        self._ledger = ledger
        self._monotonic = monotonic
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._tokens: dict[RateLimit, tuple[int, float]] = {}  # tokens, and since when they are here
        self._fetch_at: dict[RateLimit, float] = {}

    def spend(self, rate_limit: RateLimit | None) -> bool:
        """Use a token that is here; return whether there was one. None: the call needs none."""
        if rate_limit is None:
            return True
        needed = [rate_limit] if rate_limit.account is None else [rate_limit, rate_limit.account]
        with self._lock:
            if not all(map(self._count, needed)):
                return False
            for each in needed:
                tokens, since = self._tokens[each]
                self._tokens[each] = (tokens - 1, since)
            return True

    def missing(self, rate_limit: RateLimit, count: int) -> tuple[RateLimit, int]:
        """Return of which limit `count` launches lack tokens, and how many are of use now.

        Tokens of an account are of use only with as many of the queue: a slow queue would let the others expire.
        """
        with self._lock:
            held = self._count(rate_limit)
        if rate_limit.account is None or not held:
            return rate_limit, count
        return rate_limit.account, min(count, held)

    def _count(self, rate_limit: RateLimit) -> int:
        tokens, since = self._tokens.get(rate_limit, (0, 0.0))
        if tokens and self._monotonic() - since <= rate_limit.token_ttl:
            return tokens
        self._tokens.pop(rate_limit, None)
        return 0

    def fetch_delay(self, rate_limit: RateLimit) -> float:
        """Return the seconds until a fetch can bring a token."""
        return max(0.0, self._fetch_at.get(rate_limit, 0.0) - self._monotonic())

    def fetch(self, rate_limit: RateLimit, count: int) -> int:
        """Take up to `count` tokens from the ledger in one round trip; return how many it granted."""
        count = max(1, min(count, MAX_FETCH, rate_limit.burst))
        granted, delay = self._take_from_ledger(rate_limit, count, rate_limit.reserve)
        with self._lock:
            now = self._monotonic()
            if granted:
                self._add(rate_limit, granted, now)
            # Not before one token is there; a batch would have to wait for its last one.
            self._fetch_at[rate_limit] = now + max(delay, 0.001) if granted < count else now
        return granted

    def delay_fetch(self, rate_limit: RateLimit, seconds: float) -> None:
        """Do not ask the ledger for tokens for `seconds`."""
        with self._lock:
            self._fetch_at[rate_limit] = self._monotonic() + seconds

    def return_token(self, rate_limit: RateLimit) -> None:
        """Give back the token of a call that was not made."""
        with self._lock:
            self._add(rate_limit, 1, self._monotonic())

    def charge(self, rate_limit: RateLimit, calls: int) -> None:
        """Pay for calls that are made in any case: missing tokens are owed, and later calls wait for them."""
        self._take_from_ledger(rate_limit, calls, -rate_limit.burst)

    def report_throttled(self, rate_limit: RateLimit) -> None:
        """Lower the rate for all workers, since AWS has throttled a call, and drop the tokens held here."""
        share = self._ledger.record_throttle(rate_limit.bucket)
        with self._lock:
            for held in [held for held in self._tokens if held.bucket == rate_limit.bucket]:
                del self._tokens[held]
        if share:
            calls = rate_limit.bucket.partition(":")[0]
            self._telemetry.emit("rate_limit.lowered", limiter=calls, rate=round(rate_limit.rate * share, 2))

    def _add(self, rate_limit: RateLimit, count: int, now: float) -> None:
        tokens, since = self._tokens.get(rate_limit, (0, now))
        is_fresh = now - since <= rate_limit.token_ttl
        self._tokens[rate_limit] = (tokens + count, since) if is_fresh else (count, now)

    def _take_from_ledger(self, rate_limit: RateLimit, count: int, reserve: int) -> tuple[int, float]:
        return self._ledger.take_tokens(rate_limit.bucket, count, rate_limit.rate, rate_limit.burst, reserve)


class RateLimiter:
    """Limits one kind of calls to `rate` a second with `burst`; rate 0: no limit. Thread-safe."""

    def __init__(
        self, cache: TokenCache, name: str, rate: float, burst: int, reserve: int = 0, token_ttl: float = _TOKEN_TTL
    ) -> None:
        self._token_cache = cache
        self._name = name
        self._rate = rate
        self._settings = (rate, burst, reserve, token_ttl)

    def limit_for(self, target: Target) -> RateLimit | None:
        """Return the rate limit of a call to this target; None when calls are not limited."""
        if self._rate <= 0:
            return None
        account = f"{target.region}|{target.endpoint_url or ''}|{target.role_arn or ''}|{target.conn_id or ''}"
        return RateLimit(f"{self._name}:{hashlib.sha256(account.encode()).hexdigest()[:12]}", *self._settings)

    def try_acquire(self, target: Target, expected_calls: int = 1) -> float:
        """Take the token of one call.

        Args:
            expected_calls: Calls that will be made in a row: one round trip to the ledger may serve them all.

        Returns:
            0.0 when the call may be made, else the seconds until asking again is of use.
        """
        rate_limit, cache = self.limit_for(target), self._token_cache
        if rate_limit is None or cache.spend(rate_limit):
            return 0.0
        delay = cache.fetch_delay(rate_limit)
        if delay > 0:
            return delay
        cache.fetch(rate_limit, expected_calls)
        return 0.0 if cache.spend(rate_limit) else max(cache.fetch_delay(rate_limit), 0.001)

    def charge(self, target: Target, calls: int = 1) -> None:
        """See `TokenCache.charge`."""
        if (rate_limit := self.limit_for(target)) is not None:
            self._token_cache.charge(rate_limit, calls)

    def return_token(self, target: Target) -> None:
        """See `TokenCache.return_token`."""
        if (rate_limit := self.limit_for(target)) is not None:
            self._token_cache.return_token(rate_limit)

    def exchange_token(self, needed: RateLimiter, target: Target) -> None:
        """Give back the token of a call that is not made, and pay for the one that is made instead."""
        if needed is not self:
            self.return_token(target)
            needed.charge(target)

    def report_throttled(self, target: Target) -> None:
        """See `TokenCache.report_throttled`."""
        if (rate_limit := self.limit_for(target)) is not None:
            self._token_cache.report_throttled(rate_limit)
