"""The threads of a worker."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from ecs_queue.errors import LedgerUnavailable
from ecs_queue.ledger import MemoryLedger
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.fair_queue import FairQueue, Job, JobKind
from ecs_queue.worker.outages import Outages
from ecs_queue.worker.rate_limiter import RateLimit, TokenCache
from ecs_queue.worker.thread_pool import LaunchThreadPool
from tests.protocol.settings import DEFAULT_SETTINGS
from tests.wait import wait_until


class BlockingJobs:
    """Jobs that wait until they may end, and how many ran at the same time."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.running = 0
        self.max_running = 0
        self.done = 0

    def run(self) -> None:
        with self.lock:
            self.running += 1
            self.max_running = max(self.max_running, self.running)
        assert self.released.wait(20)
        with self.lock:
            self.running -= 1
            self.done += 1


class AlwaysAdmit:
    def may_launch(self, queue: str) -> bool:
        return True

    def launch_started(self, queue: str) -> None:
        """Nothing is counted."""


class ThreadPoolHarness:
    """A thread pool over a ledger in real time."""

    def __init__(self, number: int) -> None:
        self.reasons: list[str] = []
        telemetry = Telemetry(lambda name, fields: self.reasons.append(str(fields.get("reason"))))
        self.ledger = MemoryLedger(time.time, DEFAULT_SETTINGS)
        self.token_cache = TokenCache(self.ledger, time.monotonic, telemetry)
        self.thread_pool = LaunchThreadPool(
            number, Outages(telemetry, time.monotonic), self.token_cache, FairQueue(lambda queue: 1.0, AlwaysAdmit())
        )
        self.jobs = BlockingJobs()

    def submit(self, number: int = 1, queue: str = "q", permit: RateLimit | None = None) -> None:
        for _ in range(number):
            self.thread_pool.submit(Job(self.jobs.run, JobKind.MESSAGE, queue, rate_limit=permit))


@pytest.fixture
def make_harness() -> Iterator[Callable[[int], ThreadPoolHarness]]:
    harnesses: list[ThreadPoolHarness] = []

    def make(number: int) -> ThreadPoolHarness:
        harnesses.append(ThreadPoolHarness(number))
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.jobs.released.set()
        harness.thread_pool.close()


def test_never_more_jobs_run_than_there_are_threads(make_harness: Callable[[int], ThreadPoolHarness]) -> None:
    harness = make_harness(3)
    harness.submit(20)
    wait_until(lambda: harness.jobs.running == 3)
    assert (harness.thread_pool.outstanding, harness.thread_pool.free_threads) == (20, 0)

    harness.jobs.released.set()

    assert harness.thread_pool.wait_until_idle(10)
    assert (harness.jobs.max_running, harness.jobs.done) == (3, 20)
    assert (harness.thread_pool.outstanding, harness.thread_pool.free_threads) == (0, 3)


def test_as_many_jobs_of_a_kind_may_wait_as_there_are_threads(make_harness: Callable[[int], ThreadPoolHarness]) -> None:
    harness = make_harness(3)
    harness.submit(3)
    wait_until(lambda: harness.jobs.running == 3)
    assert harness.thread_pool.remaining_capacity("q", JobKind.MESSAGE) == 3
    harness.submit(2)

    assert harness.thread_pool.waiting("q", JobKind.MESSAGE) == 2
    assert harness.thread_pool.remaining_capacity("q", JobKind.MESSAGE) == 1
    assert (
        harness.thread_pool.remaining_capacity("q", JobKind.RETRY)
        == harness.thread_pool.remaining_capacity("other", JobKind.MESSAGE)
        == 3
    )


def test_a_job_that_waits_for_tokens_holds_no_thread(make_harness: Callable[[int], ThreadPoolHarness]) -> None:
    harness = make_harness(2)
    slow = RateLimit("run:slow", 0.001, 1)
    harness.submit(10, "slow", slow)
    wait_until(lambda: harness.jobs.running == 1)  # the only token there is

    harness.submit(1, "quick")

    wait_until(lambda: harness.jobs.running == 2)
    harness.jobs.released.set()
    harness.submit(50, "quick")
    wait_until(lambda: harness.jobs.done == 52)
    assert harness.thread_pool.waiting("slow", JobKind.MESSAGE) == 9


def test_jobs_run_at_the_rate_of_their_tokens(make_harness: Callable[[int], ThreadPoolHarness]) -> None:
    harness = make_harness(8)
    harness.jobs.released.set()
    permit = RateLimit("run:x", 200.0, 10)
    start = time.monotonic()

    harness.submit(60, permit=permit)

    assert harness.thread_pool.wait_until_idle(20)
    assert harness.jobs.done == 60
    assert time.monotonic() - start >= 50 / 200 - 0.001  # the ledger's clock counts milliseconds


def test_jobs_of_a_queue_with_a_rate_run_at_that_rate(make_harness: Callable[[int], ThreadPoolHarness]) -> None:
    harness = make_harness(8)
    harness.jobs.released.set()
    account = RateLimit("run:x", 10_000.0, 100)
    start = time.monotonic()

    harness.submit(20, "slow", RateLimit("launch_rate:slow", 100.0, 5, account=account))

    assert harness.thread_pool.wait_until_idle(20)
    assert harness.jobs.done == 20
    assert time.monotonic() - start >= 15 / 100 - 0.001


def test_a_slow_queue_takes_no_tokens_that_others_of_its_account_could_use(
    make_harness: Callable[[int], ThreadPoolHarness],
) -> None:
    harness = make_harness(8)
    harness.jobs.released.set()
    account = RateLimit("run:x", 0.001, 20)
    slow = RateLimit("launch_rate:slow", 0.001, 2, account=account)
    harness.submit(50, "slow", slow)
    wait_until(lambda: harness.jobs.done == 2)

    harness.submit(18, "quick", account)

    wait_until(lambda: harness.jobs.done == 20)
    assert harness.thread_pool.waiting("slow", JobKind.MESSAGE) == 48


def test_a_queue_with_a_rate_waits_for_its_account_and_keeps_its_own_token(
    make_harness: Callable[[int], ThreadPoolHarness],
) -> None:
    harness = make_harness(2)
    harness.jobs.released.set()
    account = RateLimit("run:x", 2.0, 1)
    assert harness.ledger.take_tokens("run:x", 1, 2.0, 1)[0] == 1

    harness.submit(1, "slow", RateLimit("launch_rate:slow", 0.001, 1, token_ttl=60.0, account=account))

    wait_until(lambda: harness.jobs.done == 1)
    assert harness.ledger.take_tokens("launch_rate:slow", 1, 0.001, 1)[0] == 0


def test_a_lost_ledger_is_asked_again_and_holds_up_nothing_else(
    make_harness: Callable[[int], ThreadPoolHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = make_harness(2)
    harness.jobs.released.set()
    take = harness.ledger.take_tokens
    lost = threading.Event()

    def fail_once(*arguments: object) -> tuple[int, float]:
        if not lost.is_set():
            lost.set()
            raise LedgerUnavailable
        return take(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(harness.ledger, "take_tokens", fail_once)
    harness.submit(1, permit=RateLimit("run:x", 10.0, 10))
    assert lost.wait(10)
    harness.submit(1, "other")

    assert harness.thread_pool.wait_until_idle(20)
    assert harness.jobs.done == 2
    assert harness.reasons[0] == str(LedgerUnavailable())


def test_an_error_of_a_job_is_reported_and_its_thread_is_free_again(
    make_harness: Callable[[int], ThreadPoolHarness],
) -> None:
    harness = make_harness(1)

    def broken() -> None:
        raise ZeroDivisionError("never thought of")

    harness.thread_pool.submit(Job(broken, JobKind.MESSAGE))

    assert harness.thread_pool.wait_until_idle(10)
    assert harness.reasons == ["ZeroDivisionError: never thought of"]


def test_what_waits_is_dropped_on_demand_the_next_one_last(make_harness: Callable[[int], ThreadPoolHarness]) -> None:
    harness = make_harness(1)
    harness.submit()
    wait_until(lambda: harness.jobs.running == 1)
    dropped: list[int] = []
    for number, kind in enumerate((JobKind.MESSAGE, JobKind.MESSAGE, JobKind.RETRY)):
        harness.thread_pool.submit(Job(harness.jobs.run, kind, "q", on_drop=partial(dropped.append, number)))

    harness.thread_pool.drop("q", JobKind.MESSAGE)
    assert dropped == [1, 0]
    harness.thread_pool.drop_all()

    assert dropped == [1, 0, 2]
    assert harness.thread_pool.outstanding == 1


def test_what_waits_for_a_thread_or_a_token_is_not_launching_and_a_stop_never_is(
    make_harness: Callable[[int], ThreadPoolHarness],
) -> None:
    harness = make_harness(2)
    pool = harness.thread_pool
    spent = RateLimit("run:x", 0.001, 1)
    harness.token_cache.delay_fetch(spent, math.inf)
    harness.submit(5, permit=spent)
    assert (pool.launching, pool.waiting_launches, pool.running) == (0, 5, 0)

    pool.submit(Job(harness.jobs.run, JobKind.STOP))
    wait_until(lambda: harness.jobs.running == 1)
    assert (pool.launching, pool.waiting_launches, pool.running) == (0, 5, 1)

    harness.submit(3)
    wait_until(lambda: harness.jobs.running == 2)
    assert (pool.launching, pool.waiting_launches, pool.running) == (1, 7, 2)


def test_a_job_after_the_end_is_not_counted(make_harness: Callable[[int], ThreadPoolHarness]) -> None:
    harness = make_harness(1)
    harness.thread_pool.close()

    harness.submit()

    assert harness.thread_pool.outstanding == 0


def test_waiting_is_bounded(make_harness: Callable[[int], ThreadPoolHarness]) -> None:
    harness = make_harness(1)
    harness.submit()

    assert not harness.thread_pool.wait_until_idle(0.01)


def test_nothing_is_picked_where_nothing_waits(make_harness: Callable[[int], ThreadPoolHarness]) -> None:
    assert make_harness(1).thread_pool._next_work() == math.inf
