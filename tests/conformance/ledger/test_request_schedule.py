"""Role `RequestSchedule`: which records are due, when, and to how many callers."""

from __future__ import annotations

import msgspec

from ecs_queue.protocol.operations import RefusalKind, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from tests.conformance.ledger.conftest import MakeHarness
from tests.conformance.ledger.harness import (
    DAY,
    HOUR,
    SETTINGS,
    LedgerHarness,
    claim_request,
    make_refusal,
    make_submission,
)
from tests.fake_clock import START
from tests.protocol.settings import make_settings


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


def test_a_claim_removes_a_record_from_both_indexes_of_queued_records(harness: LedgerHarness) -> None:
    harness.make_queued("fresh")
    harness.make_launching("again")
    harness.ledger.no_effect("again", "claim-1", 0.0, "throttled")
    for name in ("fresh", "again"):
        assert harness.ledger.claim(name, claim_request(f"claim-{name}")).code is ResultCode.RUN_TASK
    harness.advance(DAY)
    assert harness.ledger.lease_unclaimed("default", 10) + harness.ledger.lease_due_retries("default", 10) == []
    assert set(_ids(harness.ledger.lease_due(10))) == {"fresh", "again"}


def test_a_claim_at_the_limit_waits_among_the_retries(make_harness: MakeHarness) -> None:
    harness = make_harness(msgspec.structs.replace(SETTINGS, max_in_flight=1))
    harness.make_launching("one")
    harness.make_queued("two")
    harness.ledger.claim("two", claim_request("claim-2"))
    harness.advance(1)
    assert _ids(harness.ledger.lease_due_retries("default", 10)) == ["two"]


def test_a_leased_due_record_has_all_but_the_payload(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.advance(1)
    found = harness.ledger.lease_due(10)
    assert found == [msgspec.structs.replace(record, request=b"")]
    assert (found[0].arn, found[0].target, found[0].args) == ("arn:1", "here", '{"count": 1}')


def test_due_records_are_leased_once_in_order_of_time_up_to_the_limit(harness: LedgerHarness) -> None:
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
    harness.ledger.reschedule_poll({"job": 0.0, "queued": 0.0, "unknown": 0.0})
    harness.ledger.reschedule_poll({})
    harness.advance(1)
    assert harness.ledger.lease_due(10) == []


def test_reschedule_poll_takes_thousands_at_once(harness: LedgerHarness) -> None:
    harness.make_launched()
    harness.advance(1)
    harness.ledger.lease_due(10)
    harness.ledger.reschedule_poll({f"unknown-{number}": 1.0 for number in range(2500)} | {"job": 1.0})
    harness.advance(1)
    assert _ids(harness.ledger.lease_due(10)) == ["job"]


def test_an_expired_record_is_leased_until_a_claim_ends_it(harness: LedgerHarness) -> None:
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


def test_only_a_queued_record_stands_in_expiry(harness: LedgerHarness) -> None:
    harness.make_launching(expires_at=START + 60)
    harness.advance(60)
    assert harness.ledger.lease_expired(10) == []
    harness.ledger.no_effect("job", "claim-1", 0.0, "throttled")
    assert harness.ledger.lease_expired(10) == ["job"]


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


def test_poll_soon_moves_neither_records_due_soon_nor_claimed_ones(harness: LedgerHarness) -> None:
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


def test_prune_drops_forgotten_records_up_to_the_limit(make_harness: MakeHarness) -> None:
    harness = make_harness(make_settings(retention_seconds=HOUR))
    for name in ("one", "two", "three"):
        harness.make_ended(name, accept_until=START + 1, owner="")
    harness.make_ended("kept", accept_until=START + 3 * DAY, owner="")
    harness.advance(HOUR)
    assert [
        harness.ledger.prune(2),
        harness.ledger.prune(2),
        harness.ledger.prune(2),
    ] == [2, 1, 0]
    assert harness.get_state("kept") is State.SUCCESS
