"""Calls of many threads in few round trips."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from ecs_queue.errors import LedgerUnavailable
from ecs_queue.ledger.together import Call, Together
from tests.ledger.company import until_waiting


class Ferry:
    """Carries calls when it is let go; answers each with what it was. `trips`: the calls of each."""

    def __init__(self, fails: BaseException | None = None) -> None:
        self.trips: list[list[Call]] = []
        self.boarded = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.fails = fails

    def __call__(self, calls: Sequence[Call]) -> list[Any]:
        self.trips.append(list(calls))
        self.boarded.release()
        assert self.let_go.acquire(timeout=10)
        if self.fails is not None:
            raise self.fails
        return [("answer to", *call) for call in calls]


def _together(send: Callable[[Sequence[Call]], list[Any]], most: int = 50) -> Together:
    """No trip is overdue."""
    return Together(send, most, overdue=60.0)


def _run_while_one_is_under_way(ferry: Ferry, together: Together, number: int) -> list[Future[Any]]:
    """The first call's answer, then those of `number` that came while it was under way."""
    pool = ThreadPoolExecutor(number + 1)
    answers = [pool.submit(together.run, ("op", 0))]
    assert ferry.boarded.acquire(timeout=10)
    for one in range(1, number + 1):
        answers.append(pool.submit(together.run, ("op", one)))
        until_waiting(together, one)
    pool.shutdown(wait=False)
    return answers


def test_a_lone_call_goes_at_once_and_alone() -> None:
    ferry = Ferry()
    together = _together(ferry)
    ferry.let_go.release()
    assert together.run(("op", 1)) == ("answer to", "op", 1)
    assert ferry.trips == [[("op", 1)]]


def test_what_comes_while_a_trip_is_under_way_goes_together_with_the_next_and_each_gets_its_own_answer() -> None:
    ferry = Ferry()
    answers = _run_while_one_is_under_way(ferry, _together(ferry), 3)
    ferry.let_go.release(2)
    assert [answer.result(10) for answer in answers] == [("answer to", "op", one) for one in range(4)]
    assert [len(trip) for trip in ferry.trips] == [1, 3]


def test_no_trip_has_more_calls_than_it_may() -> None:
    ferry = Ferry()
    answers = _run_while_one_is_under_way(ferry, _together(ferry, 2), 5)
    ferry.let_go.release(4)
    assert [answer.result(10) for answer in answers] == [("answer to", "op", one) for one in range(6)]
    assert [len(trip) for trip in ferry.trips] == [1, 2, 2, 1]


def test_a_server_that_is_lost_is_lost_for_all_on_the_trip_and_the_next_trip_goes_all_the_same() -> None:
    ferry = Ferry(fails=LedgerUnavailable("gone"))
    together = _together(ferry)
    answers = _run_while_one_is_under_way(ferry, together, 2)
    ferry.let_go.release(2)
    errors = [answer.exception(10) for answer in answers]
    assert [(type(error), str(error)) for error in errors] == [(LedgerUnavailable, "gone")] * 3
    assert errors[1] is not errors[2]  # raised in two threads
    ferry.fails = None
    ferry.let_go.release()
    assert together.run(("op", 9)) == ("answer to", "op", 9)


@pytest.mark.parametrize("fails", [KeyboardInterrupt(), MemoryError(), ValueError("a bug")])
def test_whatever_stops_whoever_leads_the_others_learn_that_nothing_is_known(fails: BaseException) -> None:
    ferry = Ferry(fails=fails)
    together = _together(ferry)
    answers = _run_while_one_is_under_way(ferry, together, 2)
    ferry.let_go.release(2)
    raised = [type(answer.exception(10)) for answer in answers]
    assert raised.count(type(fails)) == 2  # who led the first trip, and the second
    assert raised.count(LedgerUnavailable) == 1
    ferry.fails = None
    ferry.let_go.release()
    assert together.run(("op", 9)) == ("answer to", "op", 9)


def test_too_few_answers_are_an_error_of_the_whole_trip() -> None:
    ferry = Ferry()
    together = _together(lambda calls: ferry(calls)[:1])
    answers = _run_while_one_is_under_way(ferry, together, 2)
    ferry.let_go.release(2)
    assert answers[0].result(10) == ("answer to", "op", 0)
    assert {type(answer.exception(10)) for answer in answers[1:]} == {ValueError, LedgerUnavailable}


def test_a_trip_that_is_overdue_is_not_waited_for() -> None:
    ferry = Ferry()
    together = Together(ferry, 50, overdue=0.01)
    with ThreadPoolExecutor(2) as pool:
        stuck = pool.submit(together.run, ("op", "stuck"))
        assert ferry.boarded.acquire(timeout=10)
        late = pool.submit(together.run, ("op", "late"))
        assert ferry.boarded.acquire(timeout=10)  # while the first is still under way
        ferry.let_go.release(2)
        assert late.result(10) == ("answer to", "op", "late")
        assert stuck.result(10) == ("answer to", "op", "stuck")
    assert ferry.trips == [[("op", "stuck")], [("op", "late")]]


def test_while_a_trip_is_stuck_those_that_come_later_wait_only_for_the_one_that_overtook_it() -> None:
    gone = threading.Event()

    def send(calls: Sequence[Call]) -> list[Any]:
        if calls[0][1] == "stuck":
            assert gone.wait(10)
        return [call[1] for call in calls]

    together = Together(send, 50, overdue=0.01)
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(together.run, ("op", "stuck"))
        assert together.run(("op", 0)) == 0
        together._overdue = 60.0  # now nothing but the overtaking can have freed the way
        assert [together.run(("op", one)) for one in range(100)] == list(range(100))
        gone.set()
        assert stuck.result(10) == "stuck"
    assert together.run(("op", 1)) == 1


@pytest.mark.parametrize("when", ["waiting", "made the leader"])
def test_whoever_is_interrupted_while_waiting_leaves_nobody_waiting_for_it(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ferry = Ferry()
    together = _together(ferry)

    def interrupted(mine: Any) -> None:
        if when == "made the leader":
            ferry.let_go.release()
            assert mine.turn.acquire(timeout=10)
            assert mine.leads
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(together.run, ("op", 0))
        assert ferry.boarded.acquire(timeout=10)
        with monkeypatch.context() as patched:
            patched.setattr(together, "_wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                together.run(("op", 1))
        ferry.let_go.release(2)
        assert first.result(10) == ("answer to", "op", 0)
        assert together.run(("op", 2)) == ("answer to", "op", 2)


@pytest.mark.parametrize("overdue", [60.0, 0.0005])
def test_of_many_threads_each_gets_its_own_answers_and_every_call_goes_once(overdue: float) -> None:
    trips = []

    def send(calls: Sequence[Call]) -> list[Any]:
        trips.append(len(calls))
        return [call[1] for call in calls]

    together = Together(send, 3, overdue)
    ready = threading.Barrier(16)

    def many(start: int) -> bool:
        ready.wait(10)
        return all(together.run(("op", number)) == number for number in range(start, start + 500))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(many, range(0, 8000, 500)))
    assert sum(trips) == 8000
