"""The slots of a worker."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from ecs_queue.core.protocol import Rules
from ecs_queue.errors import LedgerUnavailable
from ecs_queue.launcher.lanes import Job, JobKind, Lanes
from ecs_queue.launcher.quota import Permit, Tokens
from ecs_queue.launcher.slots import Slots
from ecs_queue.ledger import MemoryLedger
from ecs_queue.ledger.retention import Retention
from ecs_queue.telemetry import Telemetry


class Crowd:
    """Jobs that wait until they may go, and how many ran at the same time."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.lock = threading.Lock()
        self.running = 0
        self.most = 0
        self.done = 0

    def job(self) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.go.wait(20)
        with self.lock:
            self.running -= 1
            self.done += 1


class OpenGate:
    def may_launch(self, queue: str) -> bool:
        return True

    def started(self, queue: str) -> None:
        """Nothing is counted."""


class Bench:
    """Slots over a ledger in real time."""

    def __init__(self, number: int) -> None:
        self.told: list[str] = []
        telemetry = Telemetry(lambda name, fields: self.told.append(str(fields.get("reason"))))
        self.ledger = MemoryLedger(time.time, Rules(), Retention())
        self.tokens = Tokens(self.ledger, time.monotonic, telemetry)
        self.slots = Slots(number, telemetry, self.tokens, Lanes(lambda queue: 1.0, OpenGate()))
        self.crowd = Crowd()

    def submit(self, number: int = 1, queue: str = "q", permit: Permit | None = None) -> None:
        for _ in range(number):
            self.slots.submit(Job(self.crowd.job, JobKind.MESSAGE, queue, permit=permit))


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.002)


@pytest.fixture
def make_bench() -> Iterator[Callable[[int], Bench]]:
    benches: list[Bench] = []

    def make(number: int) -> Bench:
        benches.append(Bench(number))
        return benches[-1]

    yield make
    for bench in benches:
        bench.crowd.go.set()
        bench.slots.close()


def test_never_more_jobs_run_than_there_are_slots(make_bench: Callable[[int], Bench]) -> None:
    bench = make_bench(3)
    bench.submit(20)
    eventually(lambda: bench.crowd.running == 3)
    assert (bench.slots.in_hand, bench.slots.free) == (20, 0)

    bench.crowd.go.set()

    assert bench.slots.wait_until_idle(10)
    assert (bench.crowd.most, bench.crowd.done) == (3, 20)
    assert (bench.slots.in_hand, bench.slots.free) == (0, 3)


def test_as_many_jobs_of_a_kind_may_wait_as_there_are_slots(make_bench: Callable[[int], Bench]) -> None:
    bench = make_bench(3)
    bench.submit(3)
    eventually(lambda: bench.crowd.running == 3)
    assert bench.slots.room("q", JobKind.MESSAGE) == 3
    bench.submit(2)

    assert bench.slots.waiting("q", JobKind.MESSAGE) == 2
    assert bench.slots.room("q", JobKind.MESSAGE) == 1
    assert bench.slots.room("q", JobKind.RETRY) == bench.slots.room("other", JobKind.MESSAGE) == 3


def test_what_waits_for_tokens_holds_no_slot(make_bench: Callable[[int], Bench]) -> None:
    bench = make_bench(2)
    slow = Permit("run:slow", 0.001, 1)
    bench.submit(10, "slow", slow)
    eventually(lambda: bench.crowd.running == 1)  # the only token there is

    bench.submit(1, "quick")

    eventually(lambda: bench.crowd.running == 2)
    bench.crowd.go.set()
    bench.submit(50, "quick")
    eventually(lambda: bench.crowd.done == 52)
    assert bench.slots.waiting("slow", JobKind.MESSAGE) == 9


def test_jobs_run_at_the_rate_of_their_tokens(make_bench: Callable[[int], Bench]) -> None:
    bench = make_bench(8)
    bench.crowd.go.set()
    permit = Permit("run:x", 200.0, 10)
    start = time.monotonic()

    bench.submit(60, permit=permit)

    assert bench.slots.wait_until_idle(20)
    assert bench.crowd.done == 60
    assert time.monotonic() - start >= 50 / 200 - 0.001  # the ledger's clock counts milliseconds


def test_a_ledger_that_is_lost_is_asked_again_and_holds_up_nothing_else(
    make_bench: Callable[[int], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(2)
    bench.crowd.go.set()
    take = bench.ledger.take
    lost = threading.Event()

    def fail_once(*arguments: object) -> tuple[int, float]:
        if not lost.is_set():
            lost.set()
            raise LedgerUnavailable
        return take(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.ledger, "take", fail_once)
    bench.submit(1, permit=Permit("run:x", 10.0, 10))
    assert lost.wait(10)
    bench.submit(1, "other")

    assert bench.slots.wait_until_idle(20)
    assert bench.crowd.done == 2
    assert LedgerUnavailable.__name__ in bench.told[0]


def test_what_a_job_raises_is_told_and_its_slot_is_free_again(make_bench: Callable[[int], Bench]) -> None:
    bench = make_bench(1)

    def broken() -> None:
        raise ZeroDivisionError("never thought of")

    bench.slots.submit(Job(broken, JobKind.MESSAGE))

    assert bench.slots.wait_until_idle(10)
    assert bench.told == ["ZeroDivisionError: never thought of"]


def test_what_waits_is_dropped_on_demand_the_next_one_last(make_bench: Callable[[int], Bench]) -> None:
    bench = make_bench(1)
    bench.submit()
    eventually(lambda: bench.crowd.running == 1)
    dropped: list[int] = []
    for number, kind in enumerate((JobKind.MESSAGE, JobKind.MESSAGE, JobKind.RETRY)):
        bench.slots.submit(Job(bench.crowd.job, kind, "q", drop=partial(dropped.append, number)))

    bench.slots.drop("q", JobKind.MESSAGE)
    assert dropped == [1, 0]
    bench.slots.drop_all()

    assert dropped == [1, 0, 2]
    assert bench.slots.in_hand == 1


def test_a_job_after_the_end_is_not_counted(make_bench: Callable[[int], Bench]) -> None:
    bench = make_bench(1)
    bench.slots.close()

    bench.submit()

    assert bench.slots.in_hand == 0


def test_waiting_is_bounded(make_bench: Callable[[int], Bench]) -> None:
    bench = make_bench(1)
    bench.submit()

    assert not bench.slots.wait_until_idle(0.01)


def test_nothing_is_picked_where_nothing_waits(make_bench: Callable[[int], Bench]) -> None:
    assert make_bench(1).slots._pick() == math.inf
