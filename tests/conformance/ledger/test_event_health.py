"""What workers know together of ECS's events, and looks that are brought forward."""

from __future__ import annotations

from ecs_queue.protocol.event_health import EventFact, EventFactKind, EventHealth
from tests.conformance.ledger.harness import LedgerHarness
from tests.fake_clock import START


def test_event_health_is_empty_at_first(harness: LedgerHarness) -> None:
    assert harness.ledger.get_event_health() == {}


def test_of_each_fact_the_latest_time_is_kept_by_source(harness: LedgerHarness) -> None:
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


def _make_launched(harness: LedgerHarness, number: int, wait: float) -> None:
    harness.make_launching(f"job-{number}")
    harness.ledger.launched(f"job-{number}", "nonce-01", 1, f"arn:{number}", wait)


def test_poll_soon_brings_polls_forward_and_spreads_them(harness: LedgerHarness) -> None:
    for number in range(4):
        _make_launched(harness, number, 300.0)
    assert harness.ledger.poll_soon(8.0, 100) == 4
    found = []
    for _ in range(4):
        harness.advance(2.0)
        found.append(len(harness.ledger.lease_due(10)))
    assert found == [1, 1, 1, 1]
    assert harness.ledger.poll_soon(60.0, 100) == 0


def test_what_is_due_soon_or_not_launched_stays_as_it_is(harness: LedgerHarness) -> None:
    _make_launched(harness, 1, 5.0)
    harness.make_launching("claimed")  # due when its lease is over, after 30 s
    assert harness.ledger.poll_soon(8.0, 100) == 0
    harness.advance(5.0)
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job-1"]


def test_poll_soon_takes_the_latest_polls_first(harness: LedgerHarness) -> None:
    for number in range(3):
        _make_launched(harness, number, 100.0 * (number + 1))
    assert harness.ledger.poll_soon(1.0, 2) == 2
    harness.advance(1.0)
    assert {record.id for record in harness.ledger.lease_due(10)} == {"job-1", "job-2"}
    assert harness.ledger.poll_soon(1.0, 2) == 2  # the two wait for their lease
