"""What workers share beside the records: clock, quotas, heartbeats."""

from __future__ import annotations

import random

import msgspec
import pytest

from ecs_queue.ledger.base import WorkerInfo
from tests.conformance.ledger.conftest import MakeLab
from tests.conformance.ledger.lab import START, Lab, memory_lab


def _worker(name: str) -> WorkerInfo:
    return WorkerInfo(
        name=name,
        host="h|{ost} ü",
        pid=7,
        version="0.1",
        queues=["a b", "c"],
        concurrency=4,
        launching=1,
        following=2,
        launched=3,
        finished=4,
        health="ok",
        started_at=START,
    )


def test_now_is_the_ledgers_clock(lab: Lab) -> None:
    lab.advance(1.125)
    assert lab.ledger.now() == START + 1.125


def test_a_new_bucket_is_full_and_gives_no_more_than_its_burst(lab: Lab) -> None:
    assert lab.ledger.take("run", 4, 2.0, 10)[0] == 4
    granted, wait = lab.ledger.take("run", 100, 2.0, 10)
    assert granted == 6
    assert wait == pytest.approx(0.5)
    granted, wait = lab.ledger.take("run", 1, 2.0, 10)
    assert granted == 0
    assert wait == pytest.approx(0.5)


def test_a_bucket_fills_by_its_rate_up_to_its_burst(lab: Lab) -> None:
    lab.ledger.take("run", 10, 2.0, 10)
    lab.advance(0.75)
    granted, wait = lab.ledger.take("run", 5, 2.0, 10)
    assert granted == 1
    assert wait == pytest.approx(0.25)
    lab.advance(1000)
    assert lab.ledger.take("run", 100, 2.0, 10)[0] == 10


def test_a_bucket_grants_whole_tokens_at_the_time_it_named(lab: Lab) -> None:
    lab.ledger.take("run", 3, 3.0, 3)
    for _ in range(5):
        granted, wait = lab.ledger.take("run", 1, 3.0, 3)
        assert granted == 0
        lab.advance(wait + 0.001)
        assert lab.ledger.take("run", 1, 3.0, 3)[0] == 1


def test_buckets_do_not_share_tokens_and_asking_for_none_costs_none(lab: Lab) -> None:
    assert lab.ledger.take("run", 10, 1.0, 10)[0] == 10
    assert lab.ledger.take("describe", 0, 1.0, 10)[0] == 0
    assert lab.ledger.take("describe", 10, 1.0, 10)[0] == 10


def test_a_clock_that_steps_back_gives_no_tokens(lab: Lab) -> None:
    lab.ledger.take("run", 10, 1.0, 10)
    lab.advance(-100)
    assert lab.ledger.take("run", 10, 1.0, 10)[0] == 0
    lab.advance(100)
    assert lab.ledger.take("run", 10, 1.0, 10)[0] == 0


def test_tokens_in_reserve_stay_for_others_and_a_debt_is_paid_first(lab: Lab) -> None:
    granted, wait = lab.ledger.take("run", 10, 2.0, 10, 3)
    assert granted == 7
    assert wait == pytest.approx(0.5)
    assert lab.ledger.take("run", 2, 2.0, 10, 0)[0] == 2
    assert lab.ledger.take("run", 5, 2.0, 10, -10)[0] == 5
    granted, wait = lab.ledger.take("run", 1, 2.0, 10)
    assert granted == 0
    assert wait == pytest.approx(2.5)
    lab.advance(2.5)
    assert lab.ledger.take("run", 5, 2.0, 10, 0)[0] == 1
    assert lab.ledger.take("run", 50, 2.0, 10, -10)[0] == 10


def test_a_throttle_lowers_the_rate_at_most_once_in_two_seconds_and_it_comes_back(lab: Lab) -> None:
    lab.ledger.take("run", 1, 8.0, 10)
    assert lab.ledger.throttled("run") == 0.75
    assert lab.ledger.throttled("run") == 0
    granted, wait = lab.ledger.take("run", 1, 8.0, 10)
    assert granted == 0
    assert wait == pytest.approx(1 / 6, abs=1e-5)
    lab.advance(2)
    assert lab.ledger.throttled("run") == pytest.approx(0.5925)
    lab.advance(1)
    assert lab.ledger.take("run", 10, 8.0, 10)[0] == 4
    lab.advance(100)
    lab.ledger.take("run", 10, 8.0, 10)
    assert lab.ledger.take("run", 1, 8.0, 10)[1] == pytest.approx(0.125)


def test_a_throttle_of_a_bucket_that_nobody_has_used_counts(lab: Lab) -> None:
    assert lab.ledger.throttled("new") == 0.75
    assert lab.ledger.take("new", 1, 8.0, 10)[0] == 0


def test_both_forms_of_a_bucket_agree_whatever_happens(make_lab: MakeLab) -> None:
    one, other = make_lab(), memory_lab()
    rng = random.Random(7)
    for _ in range(300):
        seconds = rng.choice((0.0, 0.125, 0.5, 3.0, 60.0))
        want, reserve, throttled = rng.randint(0, 6), rng.choice((0, 2, -10)), rng.random() < 0.1
        answers = []
        for lab in (one, other):
            lab.advance(seconds)
            share = lab.ledger.throttled("run") if throttled else 0.0
            answers.append((share, *lab.ledger.take("run", want, 4.0, 10, reserve)))
        assert answers[0] == pytest.approx(answers[1], abs=1e-4)


def test_a_paused_queue_is_listed_since_its_first_pause_until_it_is_resumed(lab: Lab) -> None:
    lab.ledger.pause(["a", "b"])
    lab.advance(5)
    lab.ledger.pause(["a", "c"])
    assert lab.ledger.paused() == {"a": START, "b": START, "c": START + 5}
    lab.ledger.resume(["a", "c", "never paused"])
    assert lab.ledger.paused() == {"b": START}


def test_workers_are_listed_by_name_while_they_were_heard_of(lab: Lab) -> None:
    assert lab.ledger.workers() == []
    lab.ledger.heartbeat(_worker("b"), 10.0)
    lab.ledger.heartbeat(_worker("a"), 5.0)
    lab.advance(4.875)
    lab.ledger.heartbeat(_worker("b"), 10.0)
    expected = [(_worker("a"), START), (_worker("b"), START + 4.875)]
    assert lab.ledger.workers() == [msgspec.structs.replace(w, seen_at=at) for w, at in expected]
    lab.advance(0.125)
    assert [worker.name for worker in lab.ledger.workers()] == ["b"]
