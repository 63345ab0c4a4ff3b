"""Role `TokenBuckets`: token buckets shared by all workers."""

from __future__ import annotations

import random

import pytest

from tests.conformance.ledger.conftest import MakeHarness
from tests.conformance.ledger.harness import HOUR, MINUTE, LedgerHarness, make_memory_harness


def test_a_new_token_bucket_is_full_and_grants_no_more_than_its_burst(harness: LedgerHarness) -> None:
    assert harness.ledger.take_tokens("run", 4, 2.0, 10)[0] == 4
    granted, wait = harness.ledger.take_tokens("run", 100, 2.0, 10)
    assert granted == 6
    assert wait == pytest.approx(0.5)
    granted, wait = harness.ledger.take_tokens("run", 1, 2.0, 10)
    assert granted == 0
    assert wait == pytest.approx(0.5)


def test_a_token_bucket_fills_by_its_rate_up_to_its_burst(harness: LedgerHarness) -> None:
    harness.ledger.take_tokens("run", 10, 2.0, 10)
    harness.advance(0.75)
    granted, wait = harness.ledger.take_tokens("run", 5, 2.0, 10)
    assert granted == 1
    assert wait == pytest.approx(0.25)
    harness.advance(1000)
    assert harness.ledger.take_tokens("run", 100, 2.0, 10)[0] == 10


def test_a_token_bucket_grants_a_token_after_the_wait_it_returned(harness: LedgerHarness) -> None:
    harness.ledger.take_tokens("run", 3, 3.0, 3)
    for _ in range(5):
        granted, wait = harness.ledger.take_tokens("run", 1, 3.0, 3)
        assert granted == 0
        harness.advance(wait + 0.001)
        assert harness.ledger.take_tokens("run", 1, 3.0, 3)[0] == 1


def test_token_buckets_do_not_share_tokens_and_requesting_none_costs_none(harness: LedgerHarness) -> None:
    assert harness.ledger.take_tokens("run", 10, 1.0, 10)[0] == 10
    assert harness.ledger.take_tokens("describe", 0, 1.0, 10)[0] == 0
    assert harness.ledger.take_tokens("describe", 10, 1.0, 10)[0] == 10


def test_a_clock_that_steps_back_gives_no_tokens_and_withholds_none(harness: LedgerHarness) -> None:
    harness.ledger.take_tokens("run", 10, 1.0, 10)
    harness.ledger.record_throttle("run")
    harness.advance(-HOUR)
    assert harness.ledger.take_tokens("run", 10, 1.0, 10)[0] == 0
    harness.advance(MINUTE)
    assert harness.ledger.take_tokens("run", 10, 1.0, 10)[0] == 10
    assert harness.ledger.record_throttle("run") > 0


def test_tokens_in_reserve_stay_for_others_and_a_debt_is_paid_first(harness: LedgerHarness) -> None:
    granted, wait = harness.ledger.take_tokens("run", 10, 2.0, 10, 3)
    assert granted == 7
    assert wait == pytest.approx(0.5)
    assert harness.ledger.take_tokens("run", 2, 2.0, 10, 0)[0] == 2
    assert harness.ledger.take_tokens("run", 5, 2.0, 10, -10)[0] == 5
    granted, wait = harness.ledger.take_tokens("run", 1, 2.0, 10)
    assert granted == 0
    assert wait == pytest.approx(2.5)
    harness.advance(2.5)
    assert harness.ledger.take_tokens("run", 5, 2.0, 10, 0)[0] == 1
    assert harness.ledger.take_tokens("run", 50, 2.0, 10, -10)[0] == 10


def test_a_throttle_lowers_the_rate_at_most_once_in_two_seconds_and_the_rate_recovers(harness: LedgerHarness) -> None:
    harness.ledger.take_tokens("run", 1, 8.0, 10)
    assert harness.ledger.record_throttle("run") == 0.75
    assert harness.ledger.record_throttle("run") == 0
    granted, wait = harness.ledger.take_tokens("run", 1, 8.0, 10)
    assert granted == 0
    assert wait == pytest.approx(1 / 6, abs=1e-5)
    harness.advance(2)
    assert harness.ledger.record_throttle("run") == pytest.approx(0.5925)
    harness.advance(1)
    assert harness.ledger.take_tokens("run", 10, 8.0, 10)[0] == 4
    harness.advance(100)
    harness.ledger.take_tokens("run", 10, 8.0, 10)
    assert harness.ledger.take_tokens("run", 1, 8.0, 10)[1] == pytest.approx(0.125)


def test_a_throttle_of_an_unused_token_bucket_counts(harness: LedgerHarness) -> None:
    assert harness.ledger.record_throttle("new") == 0.75
    assert harness.ledger.take_tokens("new", 1, 8.0, 10)[0] == 0


@pytest.mark.slow
def test_both_implementations_of_a_token_bucket_agree(make_harness: MakeHarness) -> None:
    one, other = make_harness(), make_memory_harness()
    rng = random.Random(7)
    for _ in range(300):
        seconds = rng.choice((0.0, 0.125, 0.5, 3.0, 60.0))
        want, reserve, throttled = rng.randint(0, 6), rng.choice((0, 2, -10)), rng.random() < 0.1
        results = []
        for harness in (one, other):
            harness.advance(seconds)
            share = harness.ledger.record_throttle("run") if throttled else 0.0
            results.append((share, *harness.ledger.take_tokens("run", want, 4.0, 10, reserve)))
        assert results[0] == pytest.approx(results[1], abs=1e-4)
