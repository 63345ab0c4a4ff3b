"""Role `RequestOperations`: put, put_and_claim, claim."""

from __future__ import annotations

import msgspec
import pytest

from ecs_queue.protocol.operations import RefusalKind, ResultCode
from ecs_queue.protocol.record import Submission
from ecs_queue.protocol.states import State
from tests.conformance.ledger.conftest import MakeHarness
from tests.conformance.ledger.harness import (
    DAY,
    HOUR,
    SETTINGS,
    TRACEPARENT,
    LedgerHarness,
    claim_request,
    make_refusal,
    make_submission,
)
from tests.fake_clock import START


def test_put_makes_a_queued_record_with_every_field_of_the_submission(harness: LedgerHarness) -> None:
    new = make_submission(
        expires_at=START + 600,
        time_limit=90.5,
        relaunch="interrupted",
        traceparent=TRACEPARENT,
        labels='{"team":"ü"}',
        submitted_by="Ann",
    )
    assert harness.ledger.put([new])[0].code is ResultCode.CREATED
    record = harness.get_record()
    kept = {name: getattr(record, name) for name in Submission.__struct_fields__}
    assert kept == {name: getattr(new, name) for name in kept}
    assert record.request == new.request
    assert (record.state, record.launch, record.attempt, record.created_at) == (State.QUEUED, 1, 1, START)


def test_the_same_request_put_again_is_the_same_record_even_with_another_nonce(harness: LedgerHarness) -> None:
    harness.make_queued()
    harness.advance(60)
    again = harness.ledger.put([make_submission(nonce="nonce-02", accept_until=START + 2 * DAY)])[0]
    assert again.code is ResultCode.UNCHANGED
    assert again.record is not None
    assert (again.record.nonce, again.record.state) == ("nonce-01", State.QUEUED)


def test_another_request_under_the_same_id_is_a_conflict_and_changes_nothing(harness: LedgerHarness) -> None:
    before = harness.make_queued()
    assert harness.ledger.put([make_submission(digest="e" * 32, request=b"other")])[0].code is ResultCode.CONFLICT
    assert harness.get_record() == before


def test_a_finished_record_returns_unchanged_or_conflict_and_never_runs_again(harness: LedgerHarness) -> None:
    before = harness.make_ended()
    assert harness.ledger.put([make_submission()])[0].code is ResultCode.UNCHANGED
    assert harness.ledger.put([make_submission(digest="e" * 32)])[0].code is ResultCode.CONFLICT
    assert harness.get_record() == before


@pytest.mark.parametrize(("early", "code"), [(0.125, ResultCode.CREATED), (0.0, ResultCode.TOO_LATE)])
def test_no_record_is_made_at_or_after_accept_until(harness: LedgerHarness, early: float, code: ResultCode) -> None:
    harness.advance(DAY - early)
    result = harness.ledger.put([make_submission()])[0]
    assert result.code is code
    assert (harness.ledger.get(["job"]) == [None]) == (code is ResultCode.TOO_LATE)


def test_a_batch_of_puts_returns_results_in_order(harness: LedgerHarness) -> None:
    batch = [make_submission("a"), make_submission("b"), make_submission("a"), make_submission("b", digest="e" * 32)]
    codes = [result.code for result in harness.ledger.put(batch)]
    assert codes == [ResultCode.CREATED, ResultCode.CREATED, ResultCode.UNCHANGED, ResultCode.CONFLICT]
    assert harness.ledger.put([]) == []


def test_claim_of_a_queued_record_calls_and_freezes_arguments_and_target(harness: LedgerHarness) -> None:
    harness.make_queued()
    result = harness.ledger.claim("job", claim_request())
    assert result.code is ResultCode.RUN_TASK
    assert result.record is not None
    assert result.record == msgspec.structs.replace(harness.get_record(), request=b"")
    record = harness.get_record()
    assert (record.state, record.claim, record.worker) == (State.LAUNCHING, "claim-1", "worker-1")
    assert (record.args, record.target, record.calls) == ('{"count": 1}', "here", 1)
    assert (record.first_called_at, record.last_claim_at, record.lease_until) == (START, START, START + 30)
    assert not record.ambiguous


@pytest.mark.parametrize(
    ("nonce", "launch", "code"),
    [
        ("nonce-01", 1, ResultCode.RUN_TASK),
        ("nonce-02", 1, ResultCode.NOT_CLAIMABLE),
        ("nonce-01", 2, ResultCode.NOT_CLAIMABLE),
        ("", 0, ResultCode.RUN_TASK),
    ],
)
def test_arguments_that_are_good_for_one_launch_alone_are_frozen_for_no_other(
    harness: LedgerHarness, nonce: str, launch: int, code: ResultCode
) -> None:
    harness.make_queued()
    bound = msgspec.structs.replace(claim_request(), nonce=nonce, launch=launch)
    result = harness.ledger.claim("job", bound)
    assert result.code is code
    assert result.record is not None
    assert result.record.args == ('{"count": 1}' if code is ResultCode.RUN_TASK else "")


def test_put_and_claim_claims_only_the_launch_that_its_arguments_are_good_for(harness: LedgerHarness) -> None:
    harness.make_queued()
    bound = msgspec.structs.replace(claim_request(), nonce="nonce-02", launch=1)
    stored, claimed = harness.ledger.put_and_claim(make_submission(nonce="nonce-02"), bound)
    assert (stored.code, claimed.code, harness.get_state()) == (
        ResultCode.UNCHANGED,
        ResultCode.NOT_CLAIMABLE,
        State.QUEUED,
    )

    bound = msgspec.structs.replace(claim_request(), nonce="nonce-01", launch=1)
    stored, claimed = harness.ledger.put_and_claim(make_submission(), bound)
    assert (stored.code, claimed.code, harness.get_state()) == (
        ResultCode.UNCHANGED,
        ResultCode.RUN_TASK,
        State.LAUNCHING,
    )


def test_a_claimed_record_cannot_be_claimed_again_even_after_its_lease(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(HOUR)
    assert harness.ledger.claim("job", claim_request("claim-2")).code is ResultCode.NOT_CLAIMABLE
    assert harness.get_record().claim == "claim-1"


def test_a_retry_cannot_be_claimed_before_its_time(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.ledger.no_effect("job", "claim-1", 8.0, "throttled")
    harness.advance(7.875)
    assert harness.ledger.claim("job", claim_request("claim-2")).code is ResultCode.NOT_CLAIMABLE
    harness.advance(0.125)
    assert harness.ledger.claim("job", claim_request("claim-2")).code is ResultCode.RUN_TASK


def test_a_retry_of_the_same_launch_keeps_the_frozen_arguments_and_target(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.ledger.no_effect("job", "claim-1", 0.0, "throttled")
    harness.ledger.claim("job", claim_request("claim-2", args="newer", target="elsewhere"))
    record = harness.get_record()
    assert (record.launch, record.args, record.target, record.calls) == (1, '{"count": 1}', "here", 2)


def test_a_retry_under_a_new_number_takes_new_arguments_and_target(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.CAPACITY))
    harness.advance(2)
    harness.ledger.claim("job", claim_request("claim-2", args="newer", target="elsewhere"))
    record = harness.get_record()
    assert (record.launch, record.args, record.target) == (2, "newer", "elsewhere")


def test_a_claim_at_the_deadline_ends_the_record_as_expired(harness: LedgerHarness) -> None:
    harness.make_queued(expires_at=START + 60)
    harness.advance(59.875)
    assert harness.ledger.claim("job", None).code is ResultCode.NOT_CLAIMABLE
    harness.advance(0.125)
    result = harness.ledger.claim("job", claim_request())
    assert result.code is ResultCode.ENDED
    assert result.record is not None
    assert (result.record.state, result.record.attempts) == (State.EXPIRED, 0)
    assert "deadline" in result.record.reason
    assert harness.get_state() is State.EXPIRED


def test_a_record_expires_earlier_by_the_startup_allowance(make_harness: MakeHarness) -> None:
    harness = make_harness(msgspec.structs.replace(SETTINGS, startup_allowance=20.0))
    harness.make_queued(expires_at=START + 60)
    harness.advance(39.875)
    assert harness.ledger.lease_expired(10) == []
    harness.advance(0.125)
    assert harness.ledger.lease_expired(10) == ["job"]
    assert harness.ledger.claim("job", None).code is ResultCode.ENDED


def test_an_expired_record_names_the_reason_why_it_waited(harness: LedgerHarness) -> None:
    harness.make_launching(expires_at=START + 60)
    harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.CAPACITY))
    harness.advance(60)
    harness.ledger.claim("job", None)
    assert harness.get_record().reason.endswith("it waited because: no: capacity")


def test_at_max_in_flight_a_claim_of_any_queue_waits(make_harness: MakeHarness) -> None:
    harness = make_harness(msgspec.structs.replace(SETTINGS, max_in_flight=2))
    harness.make_launching("one")
    harness.make_launched("two", queue="other")
    harness.make_queued("three", queue="third")
    assert harness.ledger.claim("three", claim_request("claim-3")).code is ResultCode.LIMIT_REACHED
    assert harness.get_record("three").not_before == START + 1
    assert harness.ledger.claim("three", claim_request("claim-4")).code is ResultCode.NOT_CLAIMABLE
    harness.advance(1)
    harness.update_task(harness.get_record("two"), end_state=State.SUCCESS)
    assert harness.ledger.claim("three", claim_request("claim-5")).code is ResultCode.RUN_TASK


def test_an_expired_record_ends_even_at_max_in_flight(make_harness: MakeHarness) -> None:
    harness = make_harness(msgspec.structs.replace(SETTINGS, max_in_flight=1))
    harness.make_launching("one")
    harness.make_queued("two", expires_at=START + 60)
    harness.advance(60)
    assert harness.ledger.claim("two", claim_request("claim-2")).code is ResultCode.ENDED


def test_put_and_claim_makes_the_record_and_claims_it(harness: LedgerHarness) -> None:
    stored, claimed = harness.ledger.put_and_claim(make_submission(), claim_request())
    assert (stored.code, claimed.code) == (ResultCode.CREATED, ResultCode.RUN_TASK)
    assert claimed.record == msgspec.structs.replace(harness.get_record(), request=b"")


def test_put_and_claim_of_a_known_request_claims_its_record(harness: LedgerHarness) -> None:
    harness.make_queued()
    stored, claimed = harness.ledger.put_and_claim(make_submission(nonce="nonce-02"), claim_request())
    assert (stored.code, stored.record, claimed.code) == (ResultCode.UNCHANGED, None, ResultCode.RUN_TASK)
    assert claimed.record is not None
    assert claimed.record.nonce == "nonce-01"


def test_put_and_claim_of_a_message_that_came_twice_claims_once(harness: LedgerHarness) -> None:
    harness.ledger.put_and_claim(make_submission(), claim_request())
    stored, claimed = harness.ledger.put_and_claim(make_submission(), claim_request("claim-2"))
    assert (stored.code, claimed.code) == (ResultCode.UNCHANGED, ResultCode.NOT_CLAIMABLE)


def test_put_and_claim_never_claims_the_record_it_conflicts_with(harness: LedgerHarness) -> None:
    before = harness.make_queued()
    stored, claimed = harness.ledger.put_and_claim(
        make_submission(digest="e" * 32), claim_request(args="of another request")
    )
    assert (stored.code, claimed.code) == (ResultCode.CONFLICT, ResultCode.NOT_CLAIMABLE)
    assert harness.get_record() == before


def test_put_and_claim_after_accept_until_leaves_nothing(harness: LedgerHarness) -> None:
    harness.advance(DAY)
    stored, claimed = harness.ledger.put_and_claim(make_submission(), claim_request())
    assert (stored.code, claimed.code) == (ResultCode.TOO_LATE, ResultCode.NOT_FOUND)
    assert harness.ledger.get(["job"]) == [None]


def test_put_and_claim_after_a_stop_ends_at_once(harness: LedgerHarness) -> None:
    harness.stop()
    stored, claimed = harness.ledger.put_and_claim(make_submission(), claim_request())
    assert (stored.code, claimed.code) == (ResultCode.ENDED, ResultCode.NOT_CLAIMABLE)
    assert stored.record is not None
    assert stored.record.state is State.REVOKED


def test_a_claim_beyond_the_limit_of_its_queue_waits_and_other_queues_do_not(harness: LedgerHarness) -> None:
    harness.make_launching("one", queue="q")
    harness.make_queued("two", queue="q")
    harness.make_queued("other", queue="p")
    assert harness.ledger.claim("two", claim_request("claim-11", queue_limit=1)).code is ResultCode.LIMIT_REACHED
    assert harness.ledger.claim("other", claim_request("claim-12", queue_limit=1)).code is ResultCode.RUN_TASK
    record = harness.get_record("two")
    assert (record.state, record.not_before, record.args) == (State.QUEUED, START + 1, "")
    assert [found.id for found in harness.ledger.lease_due_retries("q", 10)] == []
    harness.advance(1)
    assert [found.id for found in harness.ledger.lease_due_retries("q", 10)] == ["two"]
    assert harness.ledger.claim("two", claim_request("claim-13", queue_limit=2)).code is ResultCode.RUN_TASK


def test_the_limit_counts_launching_and_launched_of_the_queue_alone(harness: LedgerHarness) -> None:
    first = harness.make_launched("first", queue="q")
    harness.make_launching("second", claim="claim-s", queue="q")
    harness.make_queued("third", queue="q")
    assert harness.ledger.claim("third", claim_request("claim-14", queue_limit=2)).code is ResultCode.LIMIT_REACHED
    assert harness.update_task(first, end_state=State.SUCCESS).code is ResultCode.ENDED
    harness.advance(1)
    assert harness.ledger.claim("third", claim_request("claim-15", queue_limit=2)).code is ResultCode.RUN_TASK


def test_a_request_of_a_paused_queue_is_not_claimed_until_it_is_resumed(harness: LedgerHarness) -> None:
    harness.ledger.pause_queues(["q"])
    harness.make_queued("waits", queue="q")
    harness.make_queued("other", queue="p")
    assert harness.ledger.claim("waits", claim_request()).code is ResultCode.PAUSED
    assert (
        harness.ledger.put_and_claim(make_submission("new", queue="q"), claim_request("claim-n"))[1].code
        is ResultCode.PAUSED
    )
    assert harness.ledger.claim("other", claim_request("claim-o")).code is ResultCode.RUN_TASK
    harness.ledger.resume_queues(["q"])
    harness.advance(1)
    assert harness.ledger.claim("waits", claim_request("claim-2")).code is ResultCode.RUN_TASK


def test_an_expired_request_that_no_worker_claimed_says_so(harness: LedgerHarness) -> None:
    harness.make_queued(expires_at=START + 10.0, queue="reports")
    harness.advance(10.0)

    harness.ledger.claim("job", None)

    assert harness.get_state() is State.EXPIRED
    assert harness.get_record().reason.endswith(
        "no worker received it: check that a worker takes from the queue reports"
    )
