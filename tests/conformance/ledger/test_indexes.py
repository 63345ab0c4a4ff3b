"""What comes due, when, and to how many; pages, counts and look-ups."""

from __future__ import annotations

import msgspec
import pytest

from ecs_queue.protocol.operations import RefusalKind, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.conformance.ledger.conftest import MakeHarness
from tests.conformance.ledger.harness import DAY, SETTINGS, LedgerHarness, claim_request, make_refusal, make_submission
from tests.fake_clock import START


def _ids(records: list[Record]) -> list[str]:
    return [record.id for record in records]


def test_an_unclaimed_record_is_leased_after_sweep_after_seconds(harness: LedgerHarness) -> None:
    harness.make_queued()
    harness.advance(4.875)
    assert harness.ledger.lease_unclaimed("default", 10) == []
    harness.advance(0.125)
    assert harness.ledger.lease_unclaimed("other", 10) == []
    assert harness.ledger.lease_unclaimed("default", 10) == [
        harness.get_record()
    ]  # with its request: there may be no message


def test_an_unclaimed_record_is_leased_to_one_caller_at_a_time(harness: LedgerHarness) -> None:
    harness.make_queued()
    harness.advance(5)
    assert _ids(harness.ledger.lease_unclaimed("default", 10)) == ["job"]
    harness.advance(29.875)
    assert harness.ledger.lease_unclaimed("default", 10) == []
    harness.advance(0.125)
    assert _ids(harness.ledger.lease_unclaimed("default", 10)) == ["job"]


def test_a_retry_is_due_at_its_time_with_its_request_and_not_as_unclaimed(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.CAPACITY, wait=8.0))
    harness.advance(7.875)
    assert harness.ledger.lease_due_retries("default", 10) == []
    harness.advance(0.125)
    assert harness.ledger.lease_unclaimed("default", 10) == []
    assert harness.ledger.lease_due_retries("other", 10) == []
    found = harness.ledger.lease_due_retries("default", 10)
    assert found == [harness.get_record()]
    assert found[0].request == make_submission().request
    assert harness.ledger.lease_due_retries("default", 10) == []
    harness.advance(30)
    assert _ids(harness.ledger.lease_due_retries("default", 10)) == ["job"]


def test_a_claim_takes_a_record_out_of_both_waiting_lists(harness: LedgerHarness) -> None:
    harness.make_queued("fresh")
    harness.make_launching("again")
    harness.ledger.no_effect("again", "claim-1", 0.0, "throttled")
    for name in ("fresh", "again"):
        assert harness.ledger.claim(name, claim_request(f"claim-{name}")).code is ResultCode.RUN_TASK
    harness.advance(DAY)
    assert harness.ledger.lease_unclaimed("default", 10) + harness.ledger.lease_due_retries("default", 10) == []
    assert set(_ids(harness.ledger.lease_due(10))) == {"fresh", "again"}


def test_a_full_claim_waits_among_the_retries(make_harness: MakeHarness) -> None:
    harness = make_harness(msgspec.structs.replace(SETTINGS, max_in_flight=1))
    harness.make_launching("one")
    harness.make_queued("two")
    harness.ledger.claim("two", claim_request("claim-2"))
    harness.advance(1)
    assert _ids(harness.ledger.lease_due_retries("default", 10)) == ["two"]


def test_due_shows_what_following_needs_without_the_payload(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.advance(1)
    found = harness.ledger.lease_due(10)
    assert found == [msgspec.structs.replace(record, request=b"")]
    assert (found[0].arn, found[0].target, found[0].args) == ("arn:1", "here", '{"count": 1}')


def test_due_is_popped_in_order_of_time_up_to_the_limit_and_to_one_only(harness: LedgerHarness) -> None:
    for number, wait in enumerate((3.0, 1.0, 2.0)):
        name = f"job-{number}"
        harness.make_launching(name)
        harness.ledger.launched(name, "nonce-01", 1, f"arn:{number}", wait)
    harness.advance(10)
    assert _ids(harness.ledger.lease_due(2)) == ["job-1", "job-2"]
    assert _ids(harness.ledger.lease_due(2)) == ["job-0"]
    assert harness.ledger.lease_due(2) == []
    harness.advance(30)
    assert len(harness.ledger.lease_due(10)) == 3


def test_a_launching_record_is_due_when_its_lease_is_over(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(29.875)
    assert harness.ledger.lease_due(10) == []
    harness.advance(0.125)
    assert _ids(harness.ledger.lease_due(10)) == ["job"]


def test_reschedule_poll_sets_the_next_poll_of_leased_records(harness: LedgerHarness) -> None:
    harness.make_launched("one", arn="arn:one")
    harness.make_launched("two", arn="arn:two")
    harness.advance(1)
    assert len(harness.ledger.lease_due(10)) == 2
    harness.ledger.reschedule_poll({"one": 2.0, "two": 4.0})
    harness.advance(2)
    assert _ids(harness.ledger.lease_due(10)) == ["one"]
    harness.advance(2)
    assert _ids(harness.ledger.lease_due(10)) == ["two"]


def test_reschedule_poll_adds_nothing_that_left_the_index(harness: LedgerHarness) -> None:
    harness.make_ended()
    harness.make_queued("queued")
    harness.ledger.reschedule_poll({"job": 0.0, "queued": 0.0, "nobody": 0.0})
    harness.ledger.reschedule_poll({})
    harness.advance(1)
    assert harness.ledger.lease_due(10) == []


def test_reschedule_poll_takes_thousands_at_once(harness: LedgerHarness) -> None:
    harness.make_launched()
    harness.advance(1)
    harness.ledger.lease_due(10)
    harness.ledger.reschedule_poll({f"nobody-{number}": 1.0 for number in range(2500)} | {"job": 1.0})
    harness.advance(1)
    assert _ids(harness.ledger.lease_due(10)) == ["job"]


def test_expiry_is_due_once_a_lease_until_it_is_carried_out(harness: LedgerHarness) -> None:
    harness.make_queued("one", expires_at=START + 60)
    harness.make_queued("two", expires_at=START + 50)
    harness.make_queued("never")
    assert harness.ledger.lease_expired(10) == []
    harness.advance(60)
    assert harness.ledger.lease_expired(1) == ["two"]
    assert harness.ledger.lease_expired(10) == ["one"]
    assert harness.ledger.lease_expired(10) == []
    assert harness.ledger.claim("one", None).code is ResultCode.ENDED
    harness.advance(30)
    assert harness.ledger.lease_expired(10) == ["two"]


def test_expiry_watches_a_record_only_while_it_is_queued(harness: LedgerHarness) -> None:
    harness.make_launching(expires_at=START + 60)
    harness.advance(60)
    assert harness.ledger.lease_expired(10) == []
    harness.ledger.no_effect("job", "claim-1", 0.0, "throttled")
    assert harness.ledger.lease_expired(10) == ["job"]


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


def test_counts_of_the_ended_stay_after_their_retention(harness: LedgerHarness) -> None:
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


def test_get_answers_in_order_with_none_for_the_unknown(harness: LedgerHarness) -> None:
    harness.make_queued("one")
    harness.make_queued("two")
    found = harness.ledger.get(["two", "nobody", "one"])
    assert [record.id if record else None for record in found] == ["two", None, "one"]
    assert harness.ledger.get([]) == []


def test_what_an_answer_holds_is_a_copy(harness: LedgerHarness) -> None:
    harness.make_queued()
    harness.get_record().state = State.FAILED
    assert harness.get_state() is State.QUEUED
