"""Quotas shared through the ledger."""

from __future__ import annotations

import pytest

from ecs_queue.core.protocol import Rules
from ecs_queue.ecs.clients import Target
from ecs_queue.launcher.quota import Permit, Quota, Tokens, reserve_of
from ecs_queue.ledger import MemoryLedger
from ecs_queue.ledger.retention import Retention
from ecs_queue.telemetry import Telemetry
from tests.launcher.lab import TARGET, Clock


class CountingLedger(MemoryLedger):
    """Counts the trips to it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, Rules(), Retention())
        self.trips = 0

    def take(self, bucket: str, want: int, rate: float, burst: int, reserve: int = 0) -> tuple[int, float]:
        self.trips += 1
        return super().take(bucket, want, rate, burst, reserve)


class Bench:
    """Workers over one ledger."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.ledger = CountingLedger(self.clock)
        self.told: list[dict[str, object]] = []

    def tokens(self) -> Tokens:
        """Another worker's."""
        return Tokens(self.ledger, self.clock, Telemetry(lambda name, fields: self.told.append(fields)))

    def quota(self, name: str = "run", rate: float = 10.0, burst: int = 5, reserve: int = 0) -> Quota:
        """Another worker's."""
        return Quota(self.tokens(), name, rate, burst, reserve)

    def take(self, quota: Quota, target: Target = TARGET) -> None:
        """Wait for the right to one call."""
        while wait := quota.take(target):
            self.clock.advance(wait)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_without_a_rate_nothing_is_asked(bench: Bench) -> None:
    quota = bench.quota(rate=0)

    assert quota.permit(TARGET) is None
    assert quota.take(TARGET) == 0.0
    for act in (quota.charge, quota.give_back, quota.throttled):
        act(TARGET)
    assert bench.ledger.trips == 0


def test_after_the_burst_calls_go_at_the_rate(bench: Bench) -> None:
    quota, start = bench.quota(), bench.clock()

    for _ in range(25):
        bench.take(quota)

    assert 2.0 <= bench.clock() - start <= 2.1


def test_workers_share_it(bench: Bench) -> None:
    quotas, start = [bench.quota(), bench.quota()], bench.clock()

    for _ in range(10):
        for quota in quotas:
            bench.take(quota)

    assert 1.5 <= bench.clock() - start <= 1.6


def test_accounts_and_kinds_of_calls_have_quotas_of_their_own(bench: Bench) -> None:
    elsewhere = Target("eu-west-1", None, None, "jobs")
    run, read = (bench.quota(name, 1.0, 1) for name in ("run", "read"))

    assert run.take(TARGET) == run.take(elsewhere) == read.take(TARGET) == 0
    assert run.take(TARGET) > 0


def test_clusters_of_one_account_share_it(bench: Bench) -> None:
    quota = bench.quota(rate=1.0, burst=1)

    assert quota.take(TARGET) == 0
    assert quota.take(Target("us-east-1", None, None, "another cluster")) > 0


def test_the_ledger_is_not_asked_before_a_token_can_be_there(bench: Bench) -> None:
    quota = bench.quota(rate=1.0, burst=1)
    quota.take(TARGET)
    quota.take(TARGET)
    trips = bench.ledger.trips

    for _ in range(100):
        assert quota.take(TARGET) > 0

    assert bench.ledger.trips == trips


def test_one_trip_brings_tokens_for_many_calls(bench: Bench) -> None:
    tokens, permit = bench.tokens(), Permit("run:x", 10.0, 100)

    assert tokens.fetch(permit, 10) == 10

    assert sum(tokens.spend(permit) for _ in range(12)) == 10
    assert bench.ledger.trips == 1


def test_calls_in_a_row_need_one_trip(bench: Bench) -> None:
    quota = bench.quota(burst=20)

    assert [quota.take(TARGET, ahead=10 - done) for done in range(10)] == [0.0] * 10

    assert bench.ledger.trips == 1


@pytest.mark.parametrize("fresh", [0.25, 1.0])
def test_tokens_that_nobody_used_for_a_while_are_dropped(bench: Bench, fresh: float) -> None:
    """Kept, they would come on top of the burst that has grown again meanwhile."""
    tokens, permit = bench.tokens(), Permit("run:x", 10.0, 100, fresh=fresh)
    tokens.fetch(permit, 10)
    bench.clock.advance(fresh - 0.01)
    assert tokens.spend(permit)

    bench.clock.advance(0.02)

    assert not tokens.spend(permit)


def test_a_token_that_was_not_used_is_there_for_the_next_call(bench: Bench) -> None:
    quota = bench.quota(rate=1.0, burst=1)
    assert quota.take(TARGET) == 0

    quota.give_back(TARGET)

    assert quota.take(TARGET) == 0
    assert quota.take(TARGET) > 0


@pytest.mark.parametrize(("burst", "reserve"), [(1, 0), (2, 1), (20, 1), (40, 2), (100, 5)])
def test_launches_leave_a_twentieth_of_the_burst(burst: int, reserve: int) -> None:
    assert reserve_of(burst) == reserve


def test_launches_never_take_the_last_tokens_from_stops(bench: Bench) -> None:
    launch, stop = bench.quota(burst=20, reserve=2), bench.quota(burst=20)
    while not launch.take(TARGET):
        pass

    assert [stop.take(TARGET) for _ in range(2)] == [0.0, 0.0]
    bench.clock.advance(0.1)  # a new token
    assert stop.take(TARGET) == 0
    assert launch.take(TARGET) > 0


def test_a_call_that_is_made_in_any_case_is_owed(bench: Bench) -> None:
    quota = bench.quota(rate=1.0, burst=2)
    quota.take(TARGET)
    quota.take(TARGET)

    quota.charge(TARGET, 2)

    assert quota.take(TARGET) == pytest.approx(3.0)


def test_a_throttle_slows_all_workers_down_once_and_time_heals_it(bench: Bench) -> None:
    one, other = bench.quota(rate=8.0, burst=100), bench.quota(rate=8.0, burst=100)
    one.take(TARGET)

    for _ in range(5):  # the calls that were under way
        one.throttled(TARGET)

    assert bench.told == [{"calls": "run", "rate": 6.0}]
    assert other.take(TARGET) == pytest.approx(1 / 6, abs=0.01)
    bench.clock.advance(60)
    start = bench.clock()
    for _ in range(100):
        bench.take(other)
    for _ in range(80):
        bench.take(other)
    assert bench.clock() - start == pytest.approx(10.0, abs=0.2)


def test_tokens_in_stock_are_worth_nothing_after_a_throttle(bench: Bench) -> None:
    tokens, permit = bench.tokens(), Permit("run:x", 10.0, 100)
    tokens.fetch(permit, 10)

    tokens.throttled(permit)

    assert not tokens.spend(permit)


def test_a_worker_alone_on_an_account_that_others_use_too_settles_at_what_is_left(bench: Bench) -> None:
    """AWS grants 10 a second of the 20 that are configured."""
    quota, granted, throttled, at = bench.quota(rate=20.0, burst=100, reserve=5), 0, 0, bench.clock()
    left, last = 100.0, at
    while bench.clock() - at < 300:
        bench.take(quota)
        left, last = min(100.0, left + 10 * (bench.clock() - last)), bench.clock()
        if left >= 1:
            left -= 1
            granted += 1
        else:
            throttled += 1
            quota.throttled(TARGET)

    assert throttled / (granted + throttled) < 0.03
    assert granted > 0.8 * 10 * 300
