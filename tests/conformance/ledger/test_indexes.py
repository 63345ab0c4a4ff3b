"""What comes due, when, and to how many; pages, counts and look-ups."""

from __future__ import annotations

import msgspec
import pytest

from ecs_queue.core.protocol import RefusalKind, Word
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from tests.conformance.ledger.conftest import MakeLab
from tests.conformance.ledger.lab import DAY, RULES, START, Lab, offer, refusal, submission


def _ids(records: list[Record]) -> list[str]:
    return [record.id for record in records]


def test_a_record_whose_message_stays_away_is_silent_after_ring_seconds(lab: Lab) -> None:
    lab.queued()
    lab.advance(4.875)
    assert lab.ledger.due_silent("default", 10) == []
    lab.advance(0.125)
    assert lab.ledger.due_silent("other", 10) == []
    assert lab.ledger.due_silent("default", 10) == [lab.record()]  # with its request: there may be no message


def test_a_silent_record_is_shown_to_one_until_the_lease_is_over(lab: Lab) -> None:
    lab.queued()
    lab.advance(5)
    assert _ids(lab.ledger.due_silent("default", 10)) == ["job"]
    lab.advance(29.875)
    assert lab.ledger.due_silent("default", 10) == []
    lab.advance(0.125)
    assert _ids(lab.ledger.due_silent("default", 10)) == ["job"]


def test_a_retry_is_due_at_its_time_with_its_request_and_not_as_silent(lab: Lab) -> None:
    lab.launching()
    lab.ledger.refused("job", "claim-1", refusal(RefusalKind.CAPACITY, wait=8.0))
    lab.advance(7.875)
    assert lab.ledger.due_retries("default", 10) == []
    lab.advance(0.125)
    assert lab.ledger.due_silent("default", 10) == []
    assert lab.ledger.due_retries("other", 10) == []
    found = lab.ledger.due_retries("default", 10)
    assert found == [lab.record()]
    assert found[0].request == submission().body
    assert lab.ledger.due_retries("default", 10) == []
    lab.advance(30)
    assert _ids(lab.ledger.due_retries("default", 10)) == ["job"]


def test_a_claim_takes_a_record_out_of_both_waiting_lists(lab: Lab) -> None:
    lab.queued("fresh")
    lab.launching("again")
    lab.ledger.no_effect("again", "claim-1", 0.0, "throttled")
    for name in ("fresh", "again"):
        assert lab.ledger.claim(name, offer(f"claim-{name}")).word is Word.CALL
    lab.advance(DAY)
    assert lab.ledger.due_silent("default", 10) + lab.ledger.due_retries("default", 10) == []
    assert set(_ids(lab.ledger.due(10))) == {"fresh", "again"}


def test_a_full_claim_waits_among_the_retries(make_lab: MakeLab) -> None:
    lab = make_lab(msgspec.structs.replace(RULES, max_in_flight=1))
    lab.launching("one")
    lab.queued("two")
    lab.ledger.claim("two", offer("claim-2"))
    lab.advance(1)
    assert _ids(lab.ledger.due_retries("default", 10)) == ["two"]


def test_due_shows_what_following_needs_without_the_payload(lab: Lab) -> None:
    record = lab.launched()
    lab.advance(1)
    found = lab.ledger.due(10)
    assert found == [msgspec.structs.replace(record, request=b"")]
    assert (found[0].arn, found[0].target, found[0].args) == ("arn:1", "here", '{"count": 1}')


def test_due_is_popped_in_order_of_time_up_to_the_limit_and_to_one_only(lab: Lab) -> None:
    for number, wait in enumerate((3.0, 1.0, 2.0)):
        name = f"job-{number}"
        lab.launching(name)
        lab.ledger.launched(name, "nonce-01", 1, f"arn:{number}", wait)
    lab.advance(10)
    assert _ids(lab.ledger.due(2)) == ["job-1", "job-2"]
    assert _ids(lab.ledger.due(2)) == ["job-0"]
    assert lab.ledger.due(2) == []
    lab.advance(30)
    assert len(lab.ledger.due(10)) == 3


def test_a_launching_record_is_due_when_its_lease_is_over(lab: Lab) -> None:
    lab.launching()
    lab.advance(29.875)
    assert lab.ledger.due(10) == []
    lab.advance(0.125)
    assert _ids(lab.ledger.due(10)) == ["job"]


def test_rest_sets_the_next_look_of_what_was_popped(lab: Lab) -> None:
    lab.launched("one", arn="arn:one")
    lab.launched("two", arn="arn:two")
    lab.advance(1)
    assert len(lab.ledger.due(10)) == 2
    lab.ledger.rest({"one": 2.0, "two": 4.0})
    lab.advance(2)
    assert _ids(lab.ledger.due(10)) == ["one"]
    lab.advance(2)
    assert _ids(lab.ledger.due(10)) == ["two"]


def test_rest_adds_nothing_that_is_not_due_any_more(lab: Lab) -> None:
    lab.ended()
    lab.queued("queued")
    lab.ledger.rest({"job": 0.0, "queued": 0.0, "nobody": 0.0})
    lab.ledger.rest({})
    lab.advance(1)
    assert lab.ledger.due(10) == []


def test_rest_takes_thousands_at_once(lab: Lab) -> None:
    lab.launched()
    lab.advance(1)
    lab.ledger.due(10)
    lab.ledger.rest({f"nobody-{number}": 1.0 for number in range(2500)} | {"job": 1.0})
    lab.advance(1)
    assert _ids(lab.ledger.due(10)) == ["job"]


def test_expiry_is_due_once_a_lease_until_it_is_carried_out(lab: Lab) -> None:
    lab.queued("one", expires_at=START + 60)
    lab.queued("two", expires_at=START + 50)
    lab.queued("never")
    assert lab.ledger.due_expired(10) == []
    lab.advance(60)
    assert lab.ledger.due_expired(1) == ["two"]
    assert lab.ledger.due_expired(10) == ["one"]
    assert lab.ledger.due_expired(10) == []
    assert lab.ledger.claim("one", None).word is Word.ENDED
    lab.advance(30)
    assert lab.ledger.due_expired(10) == ["two"]


def test_expiry_watches_a_record_only_while_it_is_queued(lab: Lab) -> None:
    lab.launching(expires_at=START + 60)
    lab.advance(60)
    assert lab.ledger.due_expired(10) == []
    lab.ledger.no_effect("job", "claim-1", 0.0, "throttled")
    assert lab.ledger.due_expired(10) == ["job"]


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_pages_show_every_record_once_live_ones_first_and_newest_first(lab: Lab, limit: int) -> None:
    for number in range(3):
        lab.ended(f"done-{number}")
        lab.advance(1)
    for number in range(2):
        lab.queued(f"live-{number}")
        lab.advance(1)
    shown: list[str] = []
    cursor = ""
    for _ in range(20):
        records, cursor = lab.ledger.page(cursor, limit)
        assert len(records) <= limit
        shown += _ids(records)
        if not cursor:
            break
    assert shown == ["live-1", "live-0", "done-2", "done-1", "done-0"]


def test_an_empty_ledger_has_no_pages(lab: Lab) -> None:
    records, cursor = lab.ledger.page("", 10)
    while cursor:
        more, cursor = lab.ledger.page(cursor, 10)
        records += more
    assert records == []


def test_counts_are_by_queue_and_state(lab: Lab) -> None:
    assert lab.ledger.counts() == {}
    lab.queued("one")
    lab.launching("two", queue="gpu")
    lab.launched("three", arn="arn:three")
    lab.ended("four")
    lab.ended("five", state=State.FAILED)
    lab.stop("six")
    assert lab.ledger.counts() == {
        "default": {State.QUEUED: 1, State.LAUNCHED: 1, State.SUCCESS: 1, State.FAILED: 1},
        "gpu": {State.LAUNCHING: 1},
        "": {State.REVOKED: 1},
    }


def test_counts_of_the_ended_stay_after_their_retention(lab: Lab) -> None:
    lab.ended()
    lab.advance(60 * DAY)
    lab.ledger.prune(10)
    assert lab.ledger.counts() == {"default": {State.SUCCESS: 1}}


def test_counts_follow_a_record_through_its_life(lab: Lab) -> None:
    lab.launched()
    lab.outcome(lab.record(), end=State.FAILED, retry=True, max_attempts=2)
    assert lab.ledger.counts() == {"default": {State.QUEUED: 1}}
    lab.stop()
    assert lab.ledger.counts() == {"default": {State.REVOKED: 1}}


def test_a_task_is_found_by_its_arn_while_it_is_live(lab: Lab) -> None:
    record = lab.launched(arn="arn:1")
    assert lab.ledger.id_of("arn:1") == "job"
    assert lab.ledger.id_of("arn:2") is None
    lab.outcome(record, end=State.SUCCESS)
    assert lab.ledger.id_of("arn:1") is None


def test_get_answers_in_order_with_none_for_the_unknown(lab: Lab) -> None:
    lab.queued("one")
    lab.queued("two")
    found = lab.ledger.get(["two", "nobody", "one"])
    assert [record.id if record else None for record in found] == ["two", None, "one"]
    assert lab.ledger.get([]) == []


def test_what_an_answer_holds_is_a_copy(lab: Lab) -> None:
    lab.queued()
    lab.record().state = State.FAILED
    assert lab.state() is State.QUEUED
