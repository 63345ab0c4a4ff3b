"""Role `RequestReader`: records by id, owner and page; counts; the request of a task."""

from __future__ import annotations

import pytest

from ecs_queue.errors import UsageError
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.conformance.ledger.harness import DAY, LedgerHarness, make_submission
from tests.fake_clock import START


def _ids(records: list[Record]) -> list[str]:
    return [record.id for record in records]


def _waiting(harness: LedgerHarness, owner: str = "airflow") -> list[str]:
    return [record.id for record in harness.ledger.list_undelivered(owner, 100)]


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_pages_show_every_record_once_live_ones_first_and_newest_first(harness: LedgerHarness, limit: int) -> None:
    for number in range(3):
        harness.make_ended(f"done-{number}")
        harness.advance(1)
    for number in range(2):
        harness.make_queued(f"live-{number}")
        harness.advance(1)
    shown: list[str] = []
    cursor = ""
    for _ in range(20):
        records, cursor = harness.ledger.list_records(cursor, limit)
        assert len(records) <= limit
        shown += _ids(records)
        if not cursor:
            break
    assert shown == ["live-1", "live-0", "done-2", "done-1", "done-0"]


def test_an_empty_ledger_has_no_pages(harness: LedgerHarness) -> None:
    records, cursor = harness.ledger.list_records("", 10)
    while cursor:
        more, cursor = harness.ledger.list_records(cursor, 10)
        records += more
    assert records == []


@pytest.mark.parametrize("cursor", ["x", "live", "live:", "live:-1", "live:1:2", "paused:0", "9" * 5000, "live:\u0661"])
def test_a_cursor_that_no_list_has_returned_is_refused(harness: LedgerHarness, cursor: str) -> None:
    with pytest.raises(UsageError, match="place in the list"):
        harness.ledger.list_records(cursor, 10)


def test_of_each_queue_the_request_that_waits_longest_is_found(harness: LedgerHarness) -> None:
    launched_at = harness.ledger.now()
    harness.make_launched("launched", arn="arn:1")
    harness.advance(1)
    harness.make_queued("old")
    harness.make_queued("gpu-old", queue="gpu")
    harness.advance(1)
    harness.make_queued("new")
    found = harness.ledger.find_oldest_queued(["default", "gpu", "none"])
    assert found == {"default": pytest.approx(launched_at + 1), "gpu": pytest.approx(launched_at + 1)}


def test_counts_are_by_queue_and_state(harness: LedgerHarness) -> None:
    assert harness.ledger.count_by_state() == {}
    harness.make_queued("one")
    harness.make_launching("two", queue="gpu")
    harness.make_launched("three", arn="arn:three")
    harness.make_ended("four")
    harness.make_ended("five", state=State.FAILED)
    harness.stop("six")
    assert harness.ledger.count_by_state() == {
        "default": {State.QUEUED: 1, State.LAUNCHED: 1, State.SUCCESS: 1, State.FAILED: 1},
        "gpu": {State.LAUNCHING: 1},
        "": {State.REVOKED: 1},
    }


def test_counts_of_terminal_states_outlive_retention(harness: LedgerHarness) -> None:
    harness.make_ended()
    harness.advance(60 * DAY)
    harness.ledger.prune(10)
    assert harness.ledger.count_by_state() == {"default": {State.SUCCESS: 1}}


def test_counts_follow_a_record_through_its_life(harness: LedgerHarness) -> None:
    harness.make_launched()
    harness.update_task(harness.get_record(), end_state=State.FAILED, may_relaunch=True, max_attempts=2)
    assert harness.ledger.count_by_state() == {"default": {State.QUEUED: 1}}
    harness.stop()
    assert harness.ledger.count_by_state() == {"default": {State.REVOKED: 1}}


def test_a_task_is_found_by_its_arn_while_it_is_live(harness: LedgerHarness) -> None:
    record = harness.make_launched(arn="arn:1")
    assert harness.ledger.find_id_by_arn("arn:1") == "job"
    assert harness.ledger.find_id_by_arn("arn:2") is None
    harness.update_task(record, end_state=State.SUCCESS)
    assert harness.ledger.find_id_by_arn("arn:1") is None


def test_get_returns_records_in_order_with_none_for_unknown_ids(harness: LedgerHarness) -> None:
    harness.make_queued("one")
    harness.make_queued("two")
    found = harness.ledger.get(["two", "unknown", "one"])
    assert [record.id if record else None for record in found] == ["two", None, "one"]
    assert harness.ledger.get([]) == []


def test_a_payload_is_returned_only_where_it_is_asked_for(harness: LedgerHarness) -> None:
    harness.make_launching()
    for record in (*harness.ledger.get(["job"]), *harness.ledger.list_records("", 10)[0]):
        assert record is not None
        assert (record.request, record.args, record.target) == (b"", "", "here")
    assert harness.ledger.get_with_payload(["unknown"]) == [None]
    (record,) = harness.ledger.get_with_payload(["job"])
    assert record is not None
    assert (record.request, record.args) == (make_submission().request, '{"count": 1}')


def test_a_returned_record_is_a_copy(harness: LedgerHarness) -> None:
    harness.make_queued()
    harness.get_record().state = State.FAILED
    assert harness.get_state() is State.QUEUED


def test_results_wait_for_their_owner_oldest_first(harness: LedgerHarness) -> None:
    for name in ("late", "early", "other"):
        harness.make_launched(name, arn=f"arn:{name}", owner="bench" if name == "other" else "airflow")
    for name, at in (("late", 50), ("early", 40), ("other", 45)):
        harness.update_task(harness.get_record(name), end_state=State.SUCCESS, exit_code=0, finished_at=START + at)
    assert _waiting(harness) == ["early", "late"]
    assert _waiting(harness, "bench") == ["other"]
    assert [record.id for record in harness.ledger.list_undelivered("airflow", 1)] == ["early"]
    assert harness.ledger.list_undelivered("airflow", 10) == [harness.get_record("early"), harness.get_record("late")]


def test_a_result_without_an_owner_is_not_undelivered(harness: LedgerHarness) -> None:
    assert not harness.make_ended(owner="").undelivered
    assert _waiting(harness, "") == []
