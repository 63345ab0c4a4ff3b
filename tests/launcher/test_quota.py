"""Quotas shared through the ledger."""

from __future__ import annotations

import threading
import time

from ecs_queue.core.protocol import Rules
from ecs_queue.ecs.clients import Target
from ecs_queue.launcher.quota import Quota
from ecs_queue.ledger import MemoryLedger
from ecs_queue.ledger.retention import Retention
from tests.launcher.lab import TARGET, Clock


class CountingLedger(MemoryLedger):
    """Counts the trips to it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, Rules(), Retention())
        self.trips = 0

    def take(self, bucket: str, want: int, rate: float, burst: int) -> tuple[int, float]:
        self.trips += 1
        return super().take(bucket, want, rate, burst)


def _waiting(clock: Clock):  # type: ignore[no-untyped-def]
    def wait(seconds: float) -> bool:
        clock.advance(seconds)
        return False

    return wait


def test_without_a_rate_nothing_is_asked() -> None:
    ledger = CountingLedger(Clock())

    assert Quota(ledger, "run", 0, 1, lambda seconds: True).take(TARGET)

    assert ledger.trips == 0


def test_after_the_burst_calls_go_at_the_rate() -> None:
    clock = Clock()
    quota = Quota(CountingLedger(clock), "run", 10.0, 5, _waiting(clock))
    start = clock()

    for _ in range(25):
        assert quota.take(TARGET)

    assert 2.0 <= clock() - start <= 2.1


def test_workers_share_it() -> None:
    clock = Clock()
    ledger = CountingLedger(clock)
    one, other = (Quota(ledger, "run", 10.0, 5, _waiting(clock)) for _ in range(2))
    start = clock()

    for _ in range(10):
        assert one.take(TARGET)
        assert other.take(TARGET)

    assert 1.5 <= clock() - start <= 1.6


def test_accounts_and_kinds_of_calls_have_quotas_of_their_own() -> None:
    ledger = CountingLedger(Clock())
    elsewhere = Target("eu-west-1", None, None, "jobs")
    run, read = (Quota(ledger, name, 1.0, 1, lambda seconds: True) for name in ("run", "read"))

    assert run.take(TARGET)
    assert run.take(elsewhere)
    assert read.take(TARGET)
    assert not run.take(TARGET)


def test_clusters_of_one_account_share_it() -> None:
    quota = Quota(CountingLedger(Clock()), "run", 1.0, 1, lambda seconds: True)

    assert quota.take(TARGET)
    assert not quota.take(Target("us-east-1", None, None, "another cluster"))


def test_it_waits_no_longer_than_its_patience() -> None:
    clock = Clock()
    quota = Quota(CountingLedger(clock), "run", 0.1, 1, _waiting(clock))
    quota.take(TARGET)
    start = clock()

    assert not quota.take(TARGET, patience=2.0)

    assert clock() - start <= 2.0


def test_a_token_that_was_not_used_is_there_for_the_next_call() -> None:
    quota = Quota(CountingLedger(Clock()), "run", 1.0, 1, lambda seconds: True)
    assert quota.take(TARGET)

    quota.give_back(TARGET)

    assert quota.take(TARGET)
    assert not quota.take(TARGET)


def test_threads_that_wait_together_share_trips_and_get_no_more_than_the_quota() -> None:
    clock = Clock()
    ledger = CountingLedger(clock)
    stopping = threading.Event()

    def wait(seconds: float) -> bool:
        return stopping.wait(0.001)

    quota = Quota(ledger, "run", 100.0, 20, wait)
    granted: list[bool] = []
    threads = [threading.Thread(target=lambda: granted.append(quota.take(TARGET))) for _ in range(30)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(granted) < 20 and time.monotonic() < deadline:
        time.sleep(0.001)
    stopping.set()
    for thread in threads:
        thread.join(10)

    assert sorted(granted) == [False] * 10 + [True] * 20
    assert quota._waiting == 0
