"""What workers know together of ECS's events, and looks that are brought forward."""

from __future__ import annotations

from ecs_queue.core.flow import Fact, Flow, Note
from tests.conformance.ledger.lab import START, Lab


def test_nothing_is_known_of_events_at_first(lab: Lab) -> None:
    assert lab.ledger.event_flows() == {}


def test_of_each_fact_the_latest_time_is_kept_by_source(lab: Lab) -> None:
    lab.ledger.note_events([Note("r/1/a|b", Fact.TIMELY, START + 5), Note("r/1/a|b", Fact.TIMELY, START + 3)])
    lab.ledger.note_events([Note("r/1/a|b", Fact.LATE, START + 1.125), Note("other", Fact.DRAINED, START)])
    lab.ledger.note_events([Note("other", Fact.MISSED, START + 9)])
    assert lab.ledger.event_flows() == {
        "r/1/a|b": Flow(timely=START + 5, late=START + 1.125),
        "other": Flow(drained=START, missed=START + 9),
    }


def _launched(lab: Lab, number: int, wait: float) -> None:
    lab.launching(f"job-{number}")
    lab.ledger.launched(f"job-{number}", "nonce-01", 1, f"arn:{number}", wait)


def test_looks_that_were_put_off_are_brought_forward_and_spread(lab: Lab) -> None:
    for number in range(4):
        _launched(lab, number, 300.0)
    assert lab.ledger.hasten(8.0, 100) == 4
    found = []
    for _ in range(4):
        lab.advance(2.0)
        found.append(len(lab.ledger.due(10)))
    assert found == [1, 1, 1, 1]
    assert lab.ledger.hasten(60.0, 100) == 0


def test_what_is_due_soon_or_not_launched_stays_as_it_is(lab: Lab) -> None:
    _launched(lab, 1, 5.0)
    lab.launching("claimed")  # due when its lease is over, after 30 s
    assert lab.ledger.hasten(8.0, 100) == 0
    lab.advance(5.0)
    assert [record.id for record in lab.ledger.due(10)] == ["job-1"]


def test_the_last_ones_are_brought_forward_first(lab: Lab) -> None:
    for number in range(3):
        _launched(lab, number, 100.0 * (number + 1))
    assert lab.ledger.hasten(1.0, 2) == 2
    lab.advance(1.0)
    assert {record.id for record in lab.ledger.due(10)} == {"job-1", "job-2"}
    assert lab.ledger.hasten(1.0, 2) == 2  # the two wait for their lease
