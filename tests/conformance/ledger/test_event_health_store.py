"""Role `EventHealthStore`: what workers know about the sources of ECS events."""

from __future__ import annotations

from ecs_queue.protocol.event_health import EventFact, EventFactKind, EventHealth
from tests.conformance.ledger.harness import LedgerHarness
from tests.fake_clock import START


def test_event_health_is_empty_at_first(harness: LedgerHarness) -> None:
    assert harness.ledger.get_event_health() == {}


def test_the_latest_time_of_each_fact_is_kept_by_source(harness: LedgerHarness) -> None:
    harness.ledger.record_event_facts(
        [EventFact("r/1/a|b", EventFactKind.TIMELY, START + 5), EventFact("r/1/a|b", EventFactKind.TIMELY, START + 3)]
    )
    harness.ledger.record_event_facts(
        [EventFact("r/1/a|b", EventFactKind.LATE, START + 1.125), EventFact("other", EventFactKind.DRAINED, START)]
    )
    harness.ledger.record_event_facts([EventFact("other", EventFactKind.MISSED, START + 9)])
    assert harness.ledger.get_event_health() == {
        "r/1/a|b": EventHealth(timely_at=START + 5, late_at=START + 1.125),
        "other": EventHealth(drained_at=START, missed_at=START + 9),
    }
