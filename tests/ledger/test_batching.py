"""Calls of many threads share round batch_sizes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from ecs_queue.errors import LedgerUnavailable
from ecs_queue.ledger.batching import Call, CallBatcher
from tests.wait import wait_until


class BlockingRoundTrip:
    """A `send` that blocks until it is released, then replies to each call with the call itself."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.batches: list[list[Call]] = []
        self.sent = threading.Semaphore(0)
        self.released = threading.Semaphore(0)
        self.error = error

    def __call__(self, calls: Sequence[Call]) -> list[Any]:
        self.batches.append(list(calls))
        self.sent.release()
        assert self.released.acquire(timeout=10)
        if self.error is not None:
            raise self.error
        return [("reply to", *call) for call in calls]


def _batcher(send: Callable[[Sequence[Call]], list[Any]], max_batch: int = 50) -> CallBatcher:
    """Make a batcher whose round batch_sizes are never overdue."""
    return CallBatcher(send, max_batch, overdue_seconds=60.0)


def _run_during_round_trip(round_trip: BlockingRoundTrip, batcher: CallBatcher, number: int) -> list[Future[Any]]:
    """Run a call, and `number` more during its round trip; return their futures in order."""
    pool = ThreadPoolExecutor(number + 1)
    results = [pool.submit(batcher.run, ("op", 0))]
    assert round_trip.sent.acquire(timeout=10)
    for one in range(1, number + 1):
        results.append(pool.submit(batcher.run, ("op", one)))
        wait_until(lambda: len(batcher._pending) >= one, interval=0.001)  # noqa: B023
    pool.shutdown(wait=False)
    return results


def test_a_lone_call_is_sent_immediately() -> None:
    round_trip = BlockingRoundTrip()
    batcher = _batcher(round_trip)
    round_trip.released.release()
    assert batcher.run(("op", 1)) == ("reply to", "op", 1)
    assert round_trip.batches == [[("op", 1)]]


def test_calls_made_during_a_round_trip_share_the_next_one() -> None:
    round_trip = BlockingRoundTrip()
    results = _run_during_round_trip(round_trip, _batcher(round_trip), 3)
    round_trip.released.release(2)
    assert [result.result(10) for result in results] == [("reply to", "op", one) for one in range(4)]
    assert [len(batch) for batch in round_trip.batches] == [1, 3]


def test_no_batch_has_more_calls_than_max_batch() -> None:
    round_trip = BlockingRoundTrip()
    results = _run_during_round_trip(round_trip, _batcher(round_trip, 2), 5)
    round_trip.released.release(4)
    assert [result.result(10) for result in results] == [("reply to", "op", one) for one in range(6)]
    assert [len(batch) for batch in round_trip.batches] == [1, 2, 2, 1]


def test_a_failed_round_trip_fails_all_its_calls_and_not_the_next_batch() -> None:
    round_trip = BlockingRoundTrip(error=LedgerUnavailable("gone"))
    batcher = _batcher(round_trip)
    results = _run_during_round_trip(round_trip, batcher, 2)
    round_trip.released.release(2)
    errors = [result.exception(10) for result in results]
    assert [(type(error), str(error)) for error in errors] == [(LedgerUnavailable, "gone")] * 3
    assert errors[1] is not errors[2]  # raised in two threads
    round_trip.error = None
    round_trip.released.release()
    assert batcher.run(("op", 9)) == ("reply to", "op", 9)


@pytest.mark.parametrize("fails", [KeyboardInterrupt(), MemoryError(), ValueError("a bug")])
def test_whatever_stops_the_leader_fails_the_calls_of_its_batch(fails: BaseException) -> None:
    round_trip = BlockingRoundTrip(error=fails)
    batcher = _batcher(round_trip)
    results = _run_during_round_trip(round_trip, batcher, 2)
    round_trip.released.release(2)
    raised = [type(result.exception(10)) for result in results]
    assert raised.count(type(fails)) == 2  # the leaders of the first round trip and of the second
    assert raised.count(LedgerUnavailable) == 1
    round_trip.error = None
    round_trip.released.release()
    assert batcher.run(("op", 9)) == ("reply to", "op", 9)


def test_too_few_replies_fail_the_whole_batch() -> None:
    round_trip = BlockingRoundTrip()
    batcher = _batcher(lambda calls: round_trip(calls)[:1])
    results = _run_during_round_trip(round_trip, batcher, 2)
    round_trip.released.release(2)
    assert results[0].result(10) == ("reply to", "op", 0)
    assert {type(result.exception(10)) for result in results[1:]} == {ValueError, LedgerUnavailable}


def test_an_overdue_round_trip_is_not_waited_for() -> None:
    round_trip = BlockingRoundTrip()
    batcher = CallBatcher(round_trip, 50, overdue_seconds=0.01)
    with ThreadPoolExecutor(2) as pool:
        stuck = pool.submit(batcher.run, ("op", "stuck"))
        assert round_trip.sent.acquire(timeout=10)
        late = pool.submit(batcher.run, ("op", "late"))
        assert round_trip.sent.acquire(timeout=10)  # while the first is still under way
        round_trip.released.release(2)
        assert late.result(10) == ("reply to", "op", "late")
        assert stuck.result(10) == ("reply to", "op", "stuck")
    assert round_trip.batches == [[("op", "stuck")], [("op", "late")]]


def test_calls_after_a_stuck_round_trip_wait_only_for_the_newer_one() -> None:
    gone = threading.Event()

    def send(calls: Sequence[Call]) -> list[Any]:
        if calls[0][1] == "stuck":
            assert gone.wait(10)
        return [call[1] for call in calls]

    batcher = CallBatcher(send, 50, overdue_seconds=0.01)
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(batcher.run, ("op", "stuck"))
        assert batcher.run(("op", 0)) == 0
        batcher._overdue_seconds = 60.0  # now nothing but the overtaking can have freed the way
        assert [batcher.run(("op", one)) for one in range(100)] == list(range(100))
        gone.set()
        assert stuck.result(10) == "stuck"
    assert batcher.run(("op", 1)) == 1


@pytest.mark.parametrize("when", ["waiting", "made the leader"])
def test_an_interrupted_thread_blocks_no_other_call(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    round_trip = BlockingRoundTrip()
    batcher = _batcher(round_trip)

    def interrupted(pending: Any) -> None:
        if when == "made the leader":
            round_trip.released.release()
            assert pending.wakeup.acquire(timeout=10)
            assert pending.is_leader
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(batcher.run, ("op", 0))
        assert round_trip.sent.acquire(timeout=10)
        with monkeypatch.context() as patched:
            patched.setattr(batcher, "_wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                batcher.run(("op", 1))
        round_trip.released.release(2)
        assert first.result(10) == ("reply to", "op", 0)
        assert batcher.run(("op", 2)) == ("reply to", "op", 2)


@pytest.mark.parametrize("overdue", [60.0, 0.0005])
def test_each_of_many_threads_gets_its_own_replies_and_every_call_is_sent_once(overdue: float) -> None:
    batch_sizes = []

    def send(calls: Sequence[Call]) -> list[Any]:
        batch_sizes.append(len(calls))
        return [call[1] for call in calls]

    batcher = CallBatcher(send, 3, overdue)
    ready = threading.Barrier(16)

    def many(start: int) -> bool:
        ready.wait(10)
        return all(batcher.run(("op", number)) == number for number in range(start, start + 500))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(many, range(0, 8000, 500)))
    assert sum(batch_sizes) == 8000
