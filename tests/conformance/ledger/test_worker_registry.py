"""Role `WorkerRegistry`: the workers that are alive."""

from __future__ import annotations

import msgspec

from tests.conformance.ledger.harness import LedgerHarness, make_worker
from tests.fake_clock import START


def test_workers_are_listed_by_name_until_their_heartbeat_expires(harness: LedgerHarness) -> None:
    assert harness.ledger.list_workers() == []
    harness.ledger.heartbeat(make_worker("b"), 10.0)
    harness.ledger.heartbeat(make_worker("a"), 5.0)
    harness.advance(4.875)
    harness.ledger.heartbeat(make_worker("b"), 10.0)
    expected = [(make_worker("a"), START), (make_worker("b"), START + 4.875)]
    assert harness.ledger.list_workers() == [msgspec.structs.replace(w, last_seen_at=at) for w, at in expected]
    harness.advance(0.125)
    assert [worker.name for worker in harness.ledger.list_workers()] == ["b"]


def test_a_last_heartbeat_of_no_time_ends_the_listing(harness: LedgerHarness) -> None:
    harness.ledger.heartbeat(make_worker("a"), 15.0)
    harness.ledger.heartbeat(make_worker("b"), 15.0)
    harness.ledger.heartbeat(make_worker("a"), 0.0)
    assert [worker.name for worker in harness.ledger.list_workers()] == ["b"]
