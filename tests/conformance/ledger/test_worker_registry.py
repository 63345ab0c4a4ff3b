"""Role `WorkerRegistry`: the workers that are alive."""

from __future__ import annotations

import msgspec

from ecs_queue.ledger.base import WorkerInfo
from tests.conformance.ledger.harness import LedgerHarness
from tests.fake_clock import START


def _worker(name: str) -> WorkerInfo:
    return WorkerInfo(
        name=name,
        host="h|{ost} ü",
        pid=7,
        version="0.1",
        queues=["a b", "c"],
        concurrency=4,
        launches_in_progress=1,
        launched_total=3,
        ended_total=4,
        health="ok",
        started_at=START,
    )


def test_workers_are_listed_by_name_until_their_heartbeat_expires(harness: LedgerHarness) -> None:
    assert harness.ledger.list_workers() == []
    harness.ledger.heartbeat(_worker("b"), 10.0)
    harness.ledger.heartbeat(_worker("a"), 5.0)
    harness.advance(4.875)
    harness.ledger.heartbeat(_worker("b"), 10.0)
    expected = [(_worker("a"), START), (_worker("b"), START + 4.875)]
    assert harness.ledger.list_workers() == [msgspec.structs.replace(w, last_seen_at=at) for w, at in expected]
    harness.advance(0.125)
    assert [worker.name for worker in harness.ledger.list_workers()] == ["b"]
