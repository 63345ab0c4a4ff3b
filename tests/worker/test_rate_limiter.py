"""Rate limits shared through the ledger."""

from __future__ import annotations

import pytest

from ecs_queue.ecs.clients import Target
from ecs_queue.ledger import MemoryLedger
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.rate_limiter import RateLimit, RateLimiter, TokenCache, stop_task_reserve
from tests.fake_clock import FakeClock
from tests.protocol.settings import DEFAULT_SETTINGS
from tests.worker.harness import TARGET


class CountingLedger(MemoryLedger):
    """Counts the trips to it."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, DEFAULT_SETTINGS)
        self.take_calls = 0

    def take_tokens(self, bucket: str, want: int, rate: float, burst: int, reserve: int = 0) -> tuple[int, float]:
        self.take_calls += 1
        return super().take_tokens(bucket, want, rate, burst, reserve)


class RateLimiterHarness:
    """Workers over one ledger."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ledger = CountingLedger(self.clock)
        self.emitted: list[dict[str, object]] = []

    def make_token_cache(self) -> TokenCache:
        """Another worker's."""
        return TokenCache(self.ledger, self.clock, Telemetry(lambda name, fields: self.emitted.append(fields)))

    def make_limiter(self, name: str = "run", rate: float = 10.0, burst: int = 5, reserve: int = 0) -> RateLimiter:
        """Another worker's."""
        return RateLimiter(self.make_token_cache(), name, rate, burst, reserve)

    def acquire(self, limiter: RateLimiter, target: Target = TARGET) -> None:
        """Wait for the token of one call."""
        while wait := limiter.try_acquire(target):
            self.clock.advance(wait)


@pytest.fixture
def harness() -> RateLimiterHarness:
    return RateLimiterHarness()


def test_without_a_rate_nothing_is_asked(harness: RateLimiterHarness) -> None:
    limiter = harness.make_limiter(rate=0)

    assert limiter.limit_for(TARGET) is None
    assert limiter.try_acquire(TARGET) == 0.0
    for act in (limiter.charge, limiter.return_token, limiter.report_throttled):
        act(TARGET)
    assert harness.ledger.take_calls == 0


def test_after_the_burst_calls_go_at_the_rate(harness: RateLimiterHarness) -> None:
    limiter, start = harness.make_limiter(), harness.clock()

    for _ in range(25):
        harness.acquire(limiter)

    assert 2.0 <= harness.clock() - start <= 2.1


def test_workers_share_it(harness: RateLimiterHarness) -> None:
    limiters, start = [harness.make_limiter(), harness.make_limiter()], harness.clock()

    for _ in range(10):
        for limiter in limiters:
            harness.acquire(limiter)

    assert 1.5 <= harness.clock() - start <= 1.6


def test_each_account_and_kind_of_call_has_its_own_rate_limit(harness: RateLimiterHarness) -> None:
    elsewhere = Target("eu-west-1", None, None, "jobs")
    run, read = (harness.make_limiter(name, 1.0, 1) for name in ("run", "read"))

    assert run.try_acquire(TARGET) == run.try_acquire(elsewhere) == read.try_acquire(TARGET) == 0
    assert run.try_acquire(TARGET) > 0


def test_clusters_of_one_account_share_it(harness: RateLimiterHarness) -> None:
    limiter = harness.make_limiter(rate=1.0, burst=1)

    assert limiter.try_acquire(TARGET) == 0
    assert limiter.try_acquire(Target("us-east-1", None, None, "another cluster")) > 0


def test_the_ledger_is_not_asked_before_a_token_can_be_there(harness: RateLimiterHarness) -> None:
    limiter = harness.make_limiter(rate=1.0, burst=1)
    limiter.try_acquire(TARGET)
    limiter.try_acquire(TARGET)
    trips = harness.ledger.take_calls

    for _ in range(100):
        assert limiter.try_acquire(TARGET) > 0

    assert harness.ledger.take_calls == trips


def test_one_ledger_call_brings_tokens_for_many_calls(harness: RateLimiterHarness) -> None:
    tokens, rate_limit = harness.make_token_cache(), RateLimit("run:x", 10.0, 100)

    assert tokens.fetch(rate_limit, 10) == 10

    assert sum(tokens.spend(rate_limit) for _ in range(12)) == 10
    assert harness.ledger.take_calls == 1


def test_calls_in_a_row_need_one_ledger_call(harness: RateLimiterHarness) -> None:
    limiter = harness.make_limiter(burst=20)

    assert [limiter.try_acquire(TARGET, expected_calls=10 - done) for done in range(10)] == [0.0] * 10

    assert harness.ledger.take_calls == 1


@pytest.mark.parametrize("token_ttl", [0.25, 1.0])
def test_tokens_unused_for_a_while_are_dropped(harness: RateLimiterHarness, token_ttl: float) -> None:
    """Kept, they would come on top of the burst that has grown again meanwhile."""
    tokens, rate_limit = harness.make_token_cache(), RateLimit("run:x", 10.0, 100, token_ttl=token_ttl)
    tokens.fetch(rate_limit, 10)
    harness.clock.advance(token_ttl - 0.01)
    assert tokens.spend(rate_limit)

    harness.clock.advance(0.02)

    assert not tokens.spend(rate_limit)


def test_a_token_that_was_not_used_is_there_for_the_next_call(harness: RateLimiterHarness) -> None:
    limiter = harness.make_limiter(rate=1.0, burst=1)
    assert limiter.try_acquire(TARGET) == 0

    limiter.return_token(TARGET)

    assert limiter.try_acquire(TARGET) == 0
    assert limiter.try_acquire(TARGET) > 0


@pytest.mark.parametrize(("burst", "reserve"), [(1, 0), (2, 1), (20, 1), (40, 2), (100, 5)])
def test_launches_leave_a_twentieth_of_the_burst(burst: int, reserve: int) -> None:
    assert stop_task_reserve(burst) == reserve


def test_launches_never_take_the_last_tokens_from_stops(harness: RateLimiterHarness) -> None:
    launch, stop = harness.make_limiter(burst=20, reserve=2), harness.make_limiter(burst=20)
    while not launch.try_acquire(TARGET):
        pass

    assert [stop.try_acquire(TARGET) for _ in range(2)] == [0.0, 0.0]
    harness.clock.advance(0.1)  # a new token
    assert stop.try_acquire(TARGET) == 0
    assert launch.try_acquire(TARGET) > 0


def test_a_call_that_is_made_in_any_case_is_owed(harness: RateLimiterHarness) -> None:
    limiter = harness.make_limiter(rate=1.0, burst=2)
    limiter.try_acquire(TARGET)
    limiter.try_acquire(TARGET)

    limiter.charge(TARGET, 2)

    assert limiter.try_acquire(TARGET) == pytest.approx(3.0)


def test_a_throttle_slows_all_workers_down_once_and_time_heals_it(harness: RateLimiterHarness) -> None:
    one, other = harness.make_limiter(rate=8.0, burst=100), harness.make_limiter(rate=8.0, burst=100)
    one.try_acquire(TARGET)

    for _ in range(5):  # the calls that were under way
        one.report_throttled(TARGET)

    assert harness.emitted == [{"limiter": "run", "rate": 6.0}]
    assert other.try_acquire(TARGET) == pytest.approx(1 / 6, abs=0.01)
    harness.clock.advance(60)
    start = harness.clock()
    for _ in range(100):
        harness.acquire(other)
    for _ in range(80):
        harness.acquire(other)
    assert harness.clock() - start == pytest.approx(10.0, abs=0.2)


def test_tokens_in_stock_are_worth_nothing_after_a_throttle(harness: RateLimiterHarness) -> None:
    tokens, rate_limit = harness.make_token_cache(), RateLimit("run:x", 10.0, 100)
    tokens.fetch(rate_limit, 10)

    tokens.report_throttled(rate_limit)

    assert not tokens.spend(rate_limit)


def test_a_worker_alone_on_an_account_that_others_use_too_settles_at_what_is_left(harness: RateLimiterHarness) -> None:
    """AWS grants 10 a second of the 20 that are configured."""
    limiter, granted, throttled, at = harness.make_limiter(rate=20.0, burst=100, reserve=5), 0, 0, harness.clock()
    left, last = 100.0, at
    while harness.clock() - at < 300:
        harness.acquire(limiter)
        left, last = min(100.0, left + 10 * (harness.clock() - last)), harness.clock()
        if left >= 1:
            left -= 1
            granted += 1
        else:
            throttled += 1
            limiter.report_throttled(TARGET)

    assert throttled / (granted + throttled) < 0.03
    assert granted > 0.8 * 10 * 300
