"""Calls of many threads in few round trips."""

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
    """Carries calls when it is let go; answers each with what it was. `trips`: the calls of each."""

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
        return [("answer to", *call) for call in calls]


def _batcher(send: Callable[[Sequence[Call]], list[Any]], most: int = 50) -> CallBatcher:
    """No trip is overdue."""
    return CallBatcher(send, most, overdue_seconds=60.0)


def _run_during_round_trip(round_trip: BlockingRoundTrip, together: CallBatcher, number: int) -> list[Future[Any]]:
    """The first call's answer, then those of `number` that came while it was under way."""
    pool = ThreadPoolExecutor(number + 1)
    answers = [pool.submit(together.run, ("op", 0))]
    assert round_trip.sent.acquire(timeout=10)
    for one in range(1, number + 1):
        answers.append(pool.submit(together.run, ("op", one)))
        wait_until(lambda: len(together._pending) >= one, interval=0.001)  # noqa: B023
    pool.shutdown(wait=False)
    return answers


def test_a_lone_call_is_sent_immediately() -> None:
    round_trip = BlockingRoundTrip()
    together = _batcher(round_trip)
    round_trip.released.release()
    assert together.run(("op", 1)) == ("answer to", "op", 1)
    assert round_trip.batches == [[("op", 1)]]


def test_calls_made_during_a_round_trip_share_the_next_one() -> None:
    round_trip = BlockingRoundTrip()
    answers = _run_during_round_trip(round_trip, _batcher(round_trip), 3)
    round_trip.released.release(2)
    assert [answer.result(10) for answer in answers] == [("answer to", "op", one) for one in range(4)]
    assert [len(trip) for trip in round_trip.batches] == [1, 3]


def test_no_batch_has_more_calls_than_max_batch() -> None:
    round_trip = BlockingRoundTrip()
    answers = _run_during_round_trip(round_trip, _batcher(round_trip, 2), 5)
    round_trip.released.release(4)
    assert [answer.result(10) for answer in answers] == [("answer to", "op", one) for one in range(6)]
    assert [len(trip) for trip in round_trip.batches] == [1, 2, 2, 1]


def test_a_failed_round_trip_fails_all_its_calls_and_not_the_next_batch() -> None:
    round_trip = BlockingRoundTrip(error=LedgerUnavailable("gone"))
    together = _batcher(round_trip)
    answers = _run_during_round_trip(round_trip, together, 2)
    round_trip.released.release(2)
    errors = [answer.exception(10) for answer in answers]
    assert [(type(error), str(error)) for error in errors] == [(LedgerUnavailable, "gone")] * 3
    assert errors[1] is not errors[2]  # raised in two threads
    round_trip.error = None
    round_trip.released.release()
    assert together.run(("op", 9)) == ("answer to", "op", 9)


@pytest.mark.parametrize("fails", [KeyboardInterrupt(), MemoryError(), ValueError("a bug")])
def test_whatever_stops_the_leader_fails_the_calls_of_its_batch(fails: BaseException) -> None:
    round_trip = BlockingRoundTrip(error=fails)
    together = _batcher(round_trip)
    answers = _run_during_round_trip(round_trip, together, 2)
    round_trip.released.release(2)
    raised = [type(answer.exception(10)) for answer in answers]
    assert raised.count(type(fails)) == 2  # who led the first trip, and the second
    assert raised.count(LedgerUnavailable) == 1
    round_trip.error = None
    round_trip.released.release()
    assert together.run(("op", 9)) == ("answer to", "op", 9)


def test_too_few_answers_fail_the_whole_batch() -> None:
    round_trip = BlockingRoundTrip()
    together = _batcher(lambda calls: round_trip(calls)[:1])
    answers = _run_during_round_trip(round_trip, together, 2)
    round_trip.released.release(2)
    assert answers[0].result(10) == ("answer to", "op", 0)
    assert {type(answer.exception(10)) for answer in answers[1:]} == {ValueError, LedgerUnavailable}


def test_an_overdue_round_trip_is_not_waited_for() -> None:
    round_trip = BlockingRoundTrip()
    together = CallBatcher(round_trip, 50, overdue_seconds=0.01)
    with ThreadPoolExecutor(2) as pool:
        stuck = pool.submit(together.run, ("op", "stuck"))
        assert round_trip.sent.acquire(timeout=10)
        late = pool.submit(together.run, ("op", "late"))
        assert round_trip.sent.acquire(timeout=10)  # while the first is still under way
        round_trip.released.release(2)
        assert late.result(10) == ("answer to", "op", "late")
        assert stuck.result(10) == ("answer to", "op", "stuck")
    assert round_trip.batches == [[("op", "stuck")], [("op", "late")]]


def test_calls_after_a_stuck_round_trip_wait_only_for_the_newer_one() -> None:
    gone = threading.Event()

    def send(calls: Sequence[Call]) -> list[Any]:
        if calls[0][1] == "stuck":
            assert gone.wait(10)
        return [call[1] for call in calls]

    together = CallBatcher(send, 50, overdue_seconds=0.01)
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(together.run, ("op", "stuck"))
        assert together.run(("op", 0)) == 0
        together._overdue_seconds = 60.0  # now nothing but the overtaking can have freed the way
        assert [together.run(("op", one)) for one in range(100)] == list(range(100))
        gone.set()
        assert stuck.result(10) == "stuck"
    assert together.run(("op", 1)) == 1


@pytest.mark.parametrize("when", ["waiting", "made the leader"])
def test_an_interrupted_thread_blocks_no_other_call(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    round_trip = BlockingRoundTrip()
    together = _batcher(round_trip)

    def interrupted(mine: Any) -> None:
        if when == "made the leader":
            round_trip.released.release()
            assert mine.wakeup.acquire(timeout=10)
            assert mine.is_leader
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(together.run, ("op", 0))
        assert round_trip.sent.acquire(timeout=10)
        with monkeypatch.context() as patched:
            patched.setattr(together, "_wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                together.run(("op", 1))
        round_trip.released.release(2)
        assert first.result(10) == ("answer to", "op", 0)
        assert together.run(("op", 2)) == ("answer to", "op", 2)


@pytest.mark.parametrize("overdue", [60.0, 0.0005])
def test_of_many_threads_each_gets_its_own_answers_and_every_call_goes_once(overdue: float) -> None:
    trips = []

    def send(calls: Sequence[Call]) -> list[Any]:
        trips.append(len(calls))
        return [call[1] for call in calls]

    together = CallBatcher(send, 3, overdue)
    ready = threading.Barrier(16)

    def many(start: int) -> bool:
        ready.wait(10)
        return all(together.run(("op", number)) == number for number in range(start, start + 500))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(many, range(0, 8000, 500)))
    assert sum(trips) == 8000
