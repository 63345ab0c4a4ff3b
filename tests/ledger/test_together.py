"""Calls of many threads in few round trips."""

from __future__ import annotations

import threading
from collections.abc import Sequence
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
    together = Together(ferry, 50)
    ferry.let_go.release()
    assert together.run(("op", 1)) == ("answer to", "op", 1)
    assert ferry.trips == [[("op", 1)]]


def test_what_comes_while_a_trip_is_under_way_goes_together_with_the_next_and_each_gets_its_own_answer() -> None:
    ferry = Ferry()
    answers = _run_while_one_is_under_way(ferry, Together(ferry, 50), 3)
    ferry.let_go.release(2)
    assert [answer.result(10) for answer in answers] == [("answer to", "op", one) for one in range(4)]
    assert [len(trip) for trip in ferry.trips] == [1, 3]


def test_no_trip_has_more_calls_than_it_may() -> None:
    ferry = Ferry()
    answers = _run_while_one_is_under_way(ferry, Together(ferry, 2), 5)
    ferry.let_go.release(4)
    assert [answer.result(10) for answer in answers] == [("answer to", "op", one) for one in range(6)]
    assert [len(trip) for trip in ferry.trips] == [1, 2, 2, 1]


def test_a_server_that_is_lost_is_lost_for_all_on_the_trip_and_the_next_trip_goes_all_the_same() -> None:
    ferry = Ferry(fails=LedgerUnavailable("gone"))
    together = Together(ferry, 50)
    answers = _run_while_one_is_under_way(ferry, together, 2)
    ferry.let_go.release()
    with pytest.raises(LedgerUnavailable, match="gone"):
        answers[0].result(10)
    assert ferry.boarded.acquire(timeout=10)
    ferry.let_go.release()
    for answer in answers[1:]:
        with pytest.raises(LedgerUnavailable, match="gone"):
            answer.result(10)
    ferry.fails = None
    ferry.let_go.release()
    assert together.run(("op", 9)) == ("answer to", "op", 9)


def test_whoever_leads_may_be_interrupted_and_the_others_learn_that_nothing_is_known() -> None:
    ferry = Ferry(fails=KeyboardInterrupt())
    together = Together(ferry, 50)
    answers = _run_while_one_is_under_way(ferry, together, 2)
    ferry.let_go.release(2)
    raised = [_raised(answer) for answer in answers]
    assert [type(error) for error in raised].count(KeyboardInterrupt) == 2  # who led the first trip, and the second
    assert [type(error) for error in raised].count(LedgerUnavailable) == 1


def test_of_many_threads_each_gets_its_own_answers_and_every_call_goes_once() -> None:
    trips = []

    def send(calls: Sequence[Call]) -> list[Any]:
        trips.append(len(calls))
        return [call[1] for call in calls]

    together = Together(send, 50)
    ready = threading.Barrier(16)

    def many(start: int) -> bool:
        ready.wait(10)
        return all(together.run(("op", number)) == number for number in range(start, start + 500))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(many, range(0, 8000, 500)))
    assert sum(trips) == 8000


def _raised(answer: Future[Any]) -> BaseException:
    error = answer.exception(10)
    assert error is not None
    return error
