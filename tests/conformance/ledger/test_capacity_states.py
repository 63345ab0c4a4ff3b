"""Role `CapacityStates`: on which variant of its capacity each queue launches."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ecs_queue.protocol.capacity_fallback import CapacityEvent, CapacityState
from ecs_queue.protocol.operations import RefusalKind
from tests.conformance.ledger.harness import (
    LedgerHarness,
    claim_request,
    make_memory_harness,
    make_refusal,
    make_report,
)
from tests.fake_clock import START

REFUSED, STARTED = CapacityEvent.REFUSED, CapacityEvent.STARTED


def report(harness: LedgerHarness, name: str = "launch", queue: str = "default", **fields: Any) -> CapacityState:
    return harness.ledger.report_capacity(queue, make_report(name, **fields))


def test_a_queue_begins_on_its_first_variant(harness: LedgerHarness) -> None:
    assert report(harness, event=CapacityEvent.NONE, variant=0) == CapacityState()


def test_so_many_refusals_in_a_row_lead_to_the_next_variant(harness: LedgerHarness) -> None:
    assert [report(harness, f"{number}", event=REFUSED).variant for number in range(3)] == [1, 1, 2]
    state = report(harness, event=CapacityEvent.NONE)
    assert (state.refusals, state.until) == (0, START + 300)
    assert state.reason == "refused on variant 1: taken back"


def test_a_start_in_between_begins_the_row_anew(harness: LedgerHarness) -> None:
    for number in range(2):
        report(harness, f"{number}", event=REFUSED)
    assert report(harness, event=STARTED).refusals == 0
    assert report(harness, "3", event=REFUSED).variant == 1


def test_one_interruption_leads_to_the_next_variant(harness: LedgerHarness) -> None:
    assert report(harness).variant == 2


def test_what_is_said_of_another_variant_than_the_present_one_counts_for_nothing(harness: LedgerHarness) -> None:
    report(harness)
    assert [report(harness, f"{number}").variant for number in range(5)] == [2] * 5


def test_the_same_event_of_the_same_launch_counts_once(harness: LedgerHarness) -> None:
    assert [report(harness, "a", event=REFUSED).refusals for _ in range(5)] == [1] * 5


def test_after_the_last_variant_the_first_follows(harness: LedgerHarness) -> None:
    variants = [report(harness, f"{number}", variant=number, variants=3).variant for number in (1, 2, 3)]
    assert variants == [2, 3, 1]
    assert report(harness, event=CapacityEvent.NONE).reason == ""


def test_after_its_time_the_first_is_tried_again_and_one_refusal_is_enough_to_leave_it(harness: LedgerHarness) -> None:
    report(harness)
    harness.advance(299)
    assert report(harness, event=CapacityEvent.NONE).variant == 2
    harness.advance(1)
    state = report(harness, event=CapacityEvent.NONE)
    assert (state.variant, state.until, state.reason) == (1, 0.0, "")
    assert report(harness, "next", event=REFUSED).variant == 2


def test_a_clock_that_goes_back_keeps_no_queue_on_a_variant_for_longer(harness: LedgerHarness) -> None:
    report(harness)
    harness.advance(-3600)
    assert report(harness, event=CapacityEvent.NONE).variant == 2
    harness.advance(300)
    assert report(harness, event=CapacityEvent.NONE).variant == 1


def test_a_variant_that_a_profile_no_longer_has_is_left(harness: LedgerHarness) -> None:
    report(harness, variants=3)
    report(harness, "second", variants=3, variant=2)
    assert report(harness, event=CapacityEvent.NONE, variants=2).variant == 1


def test_queues_share_no_state(harness: LedgerHarness) -> None:
    report(harness)
    assert report(harness, queue="other", event=CapacityEvent.NONE).variant == 1


def test_a_claim_freezes_the_variant_with_the_arguments_and_the_next_launch_has_its_own(
    harness: LedgerHarness,
) -> None:
    harness.make_queued()
    harness.ledger.claim("job", claim_request(variant=2, variant_reason="why"))
    harness.ledger.no_effect("job", "claim-1", 0.0, "throttled")
    harness.ledger.claim("job", claim_request("claim-2", variant=1))
    record = harness.get_record()
    assert (record.variant, record.variant_reason) == (2, "why")
    harness.ledger.refused("job", "claim-2", *make_refusal(RefusalKind.CAPACITY))
    record = harness.get_record()
    assert (record.launch, record.variant, record.variant_reason) == (2, 0, "")


@pytest.mark.parametrize("seed", range(5))
def test_random_reports_lead_to_the_same_states_as_in_memory(harness: LedgerHarness, seed: int) -> None:
    rng, memory = random.Random(seed), make_memory_harness()
    for number in range(300):
        fields: dict[str, Any] = {
            "variants": rng.choice((2, 3, 3, 3)),
            "max_refusals": rng.choice((1, 2, 3)),
            "seconds": rng.choice((5.0, 60.0)),
            "event": rng.choice(tuple(CapacityEvent)),
            "variant": rng.choice((1, 1, 2, 3)),
        }
        name, queue = rng.choice(("again", f"{number}")), rng.choice(("a", "b"))
        seconds = rng.choice((0.0, 1.0, 4.0, 30.0))
        states = []
        for each in (harness, memory):
            each.advance(seconds)
            states.append(report(each, name, queue, **fields))
        assert states[0] == states[1]
