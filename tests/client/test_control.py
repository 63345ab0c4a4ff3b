"""Looking at requests, stopping them, and pausing queues, from Python."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import JournalUnavailable, UnknownTask, UsageError
from ecs_queue.protocol.operations import ClaimRequest
from tests.client.harness import ClientHarness
from tests.worker_info import make_worker_info


@pytest.fixture
def filled(harness: ClientHarness, queue: EcsQueue) -> EcsQueue:
    lines = [{"id": name, "command": ["true"], "queue": "etl" if name < "c" else "default"} for name in "abcd"]
    queue.submit_many(lines)
    harness.finish("b", exit_code=1)
    return queue


def test_tasks_are_filtered(filled: EcsQueue) -> None:
    def ids(**filters: object) -> set[str]:
        return {record.id for record in filled.tasks(**filters)}  # type: ignore[arg-type]

    assert ids() == {"a", "b", "c", "d"}
    assert ids(queue="ETL") == {"a", "b"}
    assert ids(states=["queued"]) == {"a", "c", "d"}
    assert ids(states=["FAILED"], queue="etl") == {"b"}
    assert ids(owner="another") == ids(reason="no such reason") == set()
    assert ids(since="1h") == ids(since=timedelta(hours=1)) == ids(since=3600) == {"a", "b", "c", "d"}
    assert ids(since=datetime.now(UTC) + timedelta(hours=1)) == set()
    assert len(ids(limit=2)) == 2


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda queue: queue.tasks(states=["RUNNING"]), "states: expected one of QUEUED, .* found 'RUNNING'"),
        (lambda queue: queue.tasks(since="yesterday"), "since: expected an age .* found 'yesterday'"),
        (lambda queue: queue.tasks(queue="bad name!"), "queue: expected 1 to 64 of A-Z .* found 'bad name!'"),
        (lambda queue: queue.purge(""), "queue: expected 1 to 64 of A-Z .* found ''"),
        (lambda queue: queue.stop_all(queue="a,b"), "queue: expected 1 to 64 of A-Z .* found 'a,b'"),
        (lambda queue: queue.pause("etl", "bad name!"), "queue: expected 1 to 64 of A-Z .* found 'bad name!'"),
        (lambda queue: queue.resume("bad name!"), "queue: expected 1 to 64 of A-Z .* found 'bad name!'"),
        (lambda queue: queue.stop_all(), "expected a queue or states, found neither"),
        (
            lambda queue: queue.stop_all(states=["FAILED"]),
            "of LAUNCHED, LAUNCHING, QUEUED, found FAILED",
        ),
        (lambda queue: queue.events(), "a ledger in memory has no journal"),
        (lambda queue: list(queue.tasks(since=datetime(2026, 1, 31))), "since: expected a datetime with its time zone"),
    ],
)
def test_what_cannot_be_meant_is_refused(queue: EcsQueue, call: Callable[[EcsQueue], object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        call(queue)


def test_events_open_the_journal_only_when_the_first_one_is_read(
    queue: EcsQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []

    def open_journal(config: object) -> None:
        opened.append(config)
        raise JournalUnavailable("gone")

    monkeypatch.setattr("ecs_queue.client.control.check_has_journal", lambda config: None)
    monkeypatch.setattr("ecs_queue.client.control.open_journal", open_journal)

    events = queue.events()

    assert opened == []
    with pytest.raises(JournalUnavailable):
        next(events)


def test_the_status_is_found_by_id_and_by_the_arn_of_the_task(filled: EcsQueue) -> None:
    assert filled.status("b").id == filled.status("arn:b").id == "b"
    with pytest.raises(UnknownTask):
        filled.status("arn:nothing")


def test_tasks_are_filtered_by_their_key(queue: EcsQueue) -> None:
    queue.submit(["true"], id="a", concurrency_key="k")
    queue.submit(["true"], id="b", concurrency_key="k 2")

    assert [record.id for record in queue.tasks(key="k")] == ["a"]
    assert list(queue.tasks(key="none")) == []


def test_tasks_are_filtered_by_their_labels(queue: EcsQueue) -> None:
    queue.submit(["true"], id="a", labels={"team": "data", "day": "mon"})
    queue.submit(["true"], id="b", labels={"team": "ops"})
    queue.submit(["true"], id="c")
    assert [record.id for record in queue.tasks(labels={"team": "data"})] == ["a"]
    assert list(queue.tasks(labels={"team": "data", "day": "tue"})) == []
    assert len(list(queue.tasks(labels={}))) == 3


def test_all_of_a_queue_or_a_state_are_stopped(filled: EcsQueue) -> None:
    assert [(record.id, record.state) for record in filled.stop_all(queue="etl", by="operator")] == [("a", "REVOKED")]
    assert {record.id for record in filled.stop_all(states=["QUEUED"])} == {"c", "d"}
    assert filled.stop_all(queue="etl") == []


def test_purging_ends_what_waits_and_leaves_what_was_launched(filled: EcsQueue, harness: ClientHarness) -> None:
    claim_request = ClaimRequest(claim="c", worker="w", args="{}", target="{}")
    assert harness.memory_ledger.claim("c", claim_request).record is not None
    assert {record.id for record in filled.purge("default", by="operator")} == {"d"}
    assert filled.purge("default") == []
    assert filled.status("c").stop_requested_by == ""
    assert [record.id for record in filled.purge_requests(["a", "c", "unknown"])] == ["a"]
    assert filled.find_records(["unknown"]) == [None]


def test_queues_are_paused_and_resumed(queue: EcsQueue) -> None:
    queue.ledger.heartbeat(make_worker_info("w", queues=["reports"]), 60.0)
    assert queue.pause("ETL", "reports") == ["etl"]  # no worker serves it
    assert set(queue.paused_queues()) == {"etl", "reports"}

    assert queue.resume("etl", "default") == ["etl"]
    assert set(queue.paused_queues()) == {"reports"}
