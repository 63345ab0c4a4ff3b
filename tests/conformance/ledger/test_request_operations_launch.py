"""Role `RequestOperations`: launched, call_ambiguous, no_effect, refused, task_absent."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.protocol.operations import OperationResult, RefusalKind, ResultCode
from ecs_queue.protocol.states import State
from tests.conformance.ledger.harness import (
    ABSENCE_PROVABLE_AFTER,
    HOUR,
    MINUTE,
    LedgerHarness,
    claim_request,
    make_refusal,
)
from tests.fake_clock import START


def test_launched_stores_the_task_and_clears_the_claim(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(2)
    assert harness.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0) == OperationResult(ResultCode.OK, at=START + 2)
    record = harness.get_record()
    assert (record.state, record.arn, record.launched_at) == (State.LAUNCHED, "arn:1", START + 2)
    assert (record.claim, record.lease_until, record.calls, record.reason) == ("", 0.0, 0, "")
    assert record.target == "here"
    assert harness.ledger.find_id_by_arn("arn:1") == "job"


def test_launched_again_with_the_same_task_is_the_same(harness: LedgerHarness) -> None:
    before = harness.make_launched()
    assert harness.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0).code is ResultCode.UNCHANGED
    assert harness.get_record() == before


def test_launched_is_the_same_for_the_task_of_a_finished_record(harness: LedgerHarness) -> None:
    before = harness.make_ended()
    assert harness.ledger.launched("job", "nonce-01", 1, before.arn, 1.0).code is ResultCode.UNCHANGED
    assert harness.get_record() == before


@pytest.mark.parametrize(
    ("record_id", "nonce", "launch", "arn"),
    [
        ("job", "nonce-01", 1, "arn:other"),
        ("job", "nonce-02", 1, "arn:1"),
        ("job", "nonce-01", 2, "arn:1"),
        ("unknown", "nonce-01", 1, "arn:1"),
    ],
    ids=["a second task", "another submission", "another launch", "no record"],
)
def test_launched_is_to_be_stopped_when_no_record_wants_it(
    harness: LedgerHarness, record_id: str, nonce: str, launch: int, arn: str
) -> None:
    before = harness.make_launched()
    assert harness.ledger.launched(record_id, nonce, launch, arn, 1.0).code is ResultCode.UNWANTED
    assert harness.get_record() == before
    assert harness.ledger.get(["unknown"]) == [None]


def test_launched_is_to_be_stopped_after_the_record_went_to_the_next_number(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.CAPACITY))
    assert harness.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0).code is ResultCode.UNWANTED
    assert harness.get_state() is State.QUEUED


def test_launched_is_to_be_stopped_after_the_end(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.PERMANENT))
    assert harness.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0).code is ResultCode.UNWANTED
    assert harness.get_state() is State.FAILED


def test_a_late_launched_is_accepted_while_queued_with_its_number(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.ledger.no_effect("job", "claim-1", 5.0, "throttled")
    assert harness.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0).code is ResultCode.OK
    assert harness.get_state() is State.LAUNCHED
    harness.advance(10)
    assert harness.ledger.lease_due_retries("default", 10) == []


def test_a_worker_that_lost_its_claim_is_still_believed_about_a_task(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(30)
    harness.reclaim()
    assert harness.ledger.launched("job", "nonce-01", 1, "arn:1", 1.0).code is ResultCode.OK
    assert not harness.get_record().ambiguous


def test_a_record_with_a_stop_is_due_immediately_when_it_is_launched(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.stop()
    harness.ledger.launched("job", "nonce-01", 1, "arn:1", 10.0)
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]
    assert harness.get_record().stop_requested_by == "ann"


def test_an_ambiguous_call_stays_launching_and_may_be_reclaimed_at_once(harness: LedgerHarness) -> None:
    harness.make_launching()
    assert harness.ledger.call_ambiguous("job", "claim-1", 4.0, "timed out").code is ResultCode.OK
    record = harness.get_record()
    assert (record.state, record.ambiguous, record.reason) == (State.LAUNCHING, True, "timed out")
    assert record.lease_until == START
    harness.advance(3.875)
    assert harness.ledger.lease_due(10) == []
    harness.advance(0.125)
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]
    assert harness.reclaim().code is ResultCode.RUN_TASK


def test_a_call_completed_with_a_5xx_does_not_make_the_record_ambiguous(harness: LedgerHarness) -> None:
    harness.make_launching()
    assert (
        harness.ledger.call_ambiguous("job", "claim-1", 4.0, "ServerException", call_completed=True).code
        is ResultCode.OK
    )
    assert not harness.get_record().ambiguous
    assert harness.reclaim().code is ResultCode.RUN_TASK
    assert harness.get_record().ambiguous


@pytest.mark.parametrize("call_completed", [False, True])
def test_a_worker_that_reported_an_ambiguous_call_cannot_report_its_absence_later(
    harness: LedgerHarness, call_completed: bool
) -> None:
    harness.make_launching()
    harness.ledger.call_ambiguous("job", "claim-1", 0.0, "ambiguous", call_completed)
    assert harness.ledger.no_effect("job", "claim-1", 1.0, "throttled").code is ResultCode.CLAIM_LOST
    assert harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.CAPACITY)).code is ResultCode.CLAIM_LOST
    assert harness.get_state() is State.LAUNCHING


def test_no_effect_queues_the_same_number_again_and_forgets_the_call(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(1)
    assert harness.ledger.no_effect("job", "claim-1", 4.0, "throttled").code is ResultCode.OK
    record = harness.get_record()
    assert (record.state, record.launch, record.attempt) == (State.QUEUED, 1, 1)
    assert (record.not_before, record.reason) == (START + 5, "throttled")
    assert (record.first_called_at, record.last_claim_at, record.claim, record.lease_until) == (0.0, 0.0, "", 0.0)


def test_no_effect_leaves_an_ambiguous_record_launching(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(30)
    harness.reclaim()
    assert harness.ledger.no_effect("job", "claim-2", 4.0, "throttled").code is ResultCode.OK
    record = harness.get_record()
    assert (record.state, record.ambiguous, record.lease_until) == (State.LAUNCHING, True, START + 30)
    assert record.first_called_at == START


def test_no_effect_on_a_stopped_record_ends_it(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.stop()
    result = harness.ledger.no_effect("job", "claim-1", 4.0, "throttled")
    assert result.code is ResultCode.ENDED
    assert result.record is not None
    assert (result.record.state, result.record.attempts) == (State.REVOKED, 0)
    assert result.record.reason == "stopped by ann"


def test_what_following_the_task_needs_is_stored_with_the_arguments_and_cleared_with_them(
    harness: LedgerHarness,
) -> None:
    stored: dict[str, Any] = {"container_name": "main", "max_attempts": 3, "spec_version": 1}
    harness.make_queued()
    harness.ledger.claim("job", claim_request(**stored))
    harness.ledger.no_effect("job", "claim-1", 0.0, "throttled")
    harness.advance(1)
    harness.ledger.claim("job", claim_request("claim-2", args="other", container_name="sidecar", spec_version=2))
    record = harness.get_record()
    assert (record.container_name, record.max_attempts, record.spec_version) == ("main", 3, 1)

    harness.ledger.refused("job", "claim-2", *make_refusal(RefusalKind.CAPACITY))
    record = harness.get_record()
    assert (record.container_name, record.max_attempts, record.spec_version) == ("", 0, 0)


def test_lack_of_capacity_takes_the_next_number_and_no_attempt(harness: LedgerHarness) -> None:
    harness.make_launching()
    result = harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.CAPACITY, wait=8.0))
    assert result.code is ResultCode.REQUEUED
    record = harness.get_record()
    assert (record.state, record.launch, record.attempt) == (State.QUEUED, 2, 1)
    assert (record.not_before, record.reason, record.calls) == (START + 8, "no: capacity", 1)
    assert (record.args, record.target, record.first_called_at, record.requeued_at) == ("", "", 0.0, 0.0)


def test_a_start_failure_takes_the_next_number_and_an_attempt(harness: LedgerHarness) -> None:
    harness.make_launching()
    assert (
        harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.START_FAILURE)).code is ResultCode.REQUEUED
    )
    record = harness.get_record()
    assert (record.launch, record.attempt, record.calls) == (2, 2, 0)
    assert record.requeued_at == START


def test_the_last_start_failure_removes_the_request(harness: LedgerHarness) -> None:
    harness.make_launching()
    result = harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.START_FAILURE, max_attempts=1))
    assert result.code is ResultCode.ENDED
    record = harness.get_record()
    assert (record.state, record.attempts, record.reason) == (State.REMOVED, 1, "no: start_failure")


def test_a_permanent_refusal_fails_the_request_whatever_attempts_are_left(harness: LedgerHarness) -> None:
    harness.make_launching()
    assert harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.PERMANENT)).code is ResultCode.ENDED
    record = harness.get_record()
    assert (record.state, record.reason, record.request, record.args) == (State.FAILED, "no: permanent", b"", "")


@pytest.mark.parametrize(
    ("kind", "attempts"),
    [
        (RefusalKind.CAPACITY, 0),
        (RefusalKind.GIVEN_BACK, 0),
        (RefusalKind.START_FAILURE, 1),
        (RefusalKind.PERMANENT, 1),
    ],
)
def test_a_stopped_record_is_revoked_by_any_refusal(harness: LedgerHarness, kind: RefusalKind, attempts: int) -> None:
    harness.make_launching()
    harness.stop()
    assert harness.ledger.refused("job", "claim-1", *make_refusal(kind)).code is ResultCode.ENDED
    record = harness.get_record()
    assert (record.state, record.attempts, record.reason) == (State.REVOKED, attempts, "stopped by ann")


@pytest.mark.parametrize("kind", list(RefusalKind))
def test_a_refusal_retires_the_launch_number_of_an_ambiguous_record(harness: LedgerHarness, kind: RefusalKind) -> None:
    is_retired = kind is not RefusalKind.GIVEN_BACK  # that is no refusal: the same call may be made again
    harness.make_launching()
    harness.advance(30)
    harness.reclaim()
    assert harness.ledger.refused("job", "claim-2", *make_refusal(kind, wait=4.0)).code is ResultCode.OK
    record = harness.get_record()
    assert (record.state, record.launch, record.attempt, record.retired) == (State.LAUNCHING, 1, 1, is_retired)
    assert record.lease_until == START + 30


def test_a_claim_that_was_taken_over_writes_nothing(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(30)
    harness.reclaim()
    before = harness.get_record()
    assert harness.ledger.call_ambiguous("job", "claim-1", 0.0, "late").code is ResultCode.CLAIM_LOST
    assert harness.ledger.no_effect("job", "claim-1", 0.0, "late").code is ResultCode.CLAIM_LOST
    assert harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.PERMANENT)).code is ResultCode.CLAIM_LOST
    assert harness.ledger.task_absent("job", "claim-1", 0.0).code is ResultCode.CLAIM_LOST
    assert harness.get_record() == before


@pytest.mark.parametrize("step", ["make_queued", "make_launched", "make_ended"])
def test_an_empty_claim_token_is_lost_in_any_state(harness: LedgerHarness, step: str) -> None:
    before = getattr(harness, step)()
    assert harness.ledger.call_ambiguous("job", "", 0.0, "x").code is ResultCode.CLAIM_LOST
    assert harness.ledger.no_effect("job", "", 0.0, "x").code is ResultCode.CLAIM_LOST
    assert harness.ledger.refused("job", "", *make_refusal(RefusalKind.PERMANENT)).code is ResultCode.CLAIM_LOST
    assert harness.ledger.task_absent("job", "", 0.0).code is ResultCode.CLAIM_LOST
    assert harness.get_record() == before


def test_a_claim_on_nothing_is_lost(harness: LedgerHarness) -> None:
    assert harness.ledger.call_ambiguous("job", "claim-1", 0.0, "x").code is ResultCode.CLAIM_LOST
    assert harness.ledger.no_effect("job", "claim-1", 0.0, "x").code is ResultCode.CLAIM_LOST
    assert harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.PERMANENT)).code is ResultCode.CLAIM_LOST
    assert harness.ledger.task_absent("job", "claim-1", 0.0).code is ResultCode.CLAIM_LOST


def test_the_claim_of_a_call_cannot_prove_that_nothing_was_started(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(ABSENCE_PROVABLE_AFTER)  # its lease is over, but no worker has taken over
    assert harness.ledger.task_absent("job", "claim-1", 1.0).code is ResultCode.TOO_EARLY


def test_task_absent_is_too_early_before_absence_is_provable(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.stop()
    harness.advance(ABSENCE_PROVABLE_AFTER - 10)
    assert harness.reclaim().code is ResultCode.LIST_TASKS
    assert harness.ledger.task_absent("job", "claim-2", 30.0).code is ResultCode.TOO_EARLY
    harness.advance(9.875)
    assert harness.ledger.lease_due(10) == []
    harness.advance(0.125)
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]
    assert harness.get_state() is State.LAUNCHING


def test_early_waits_no_longer_than_asked(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.stop()
    harness.advance(30)
    harness.reclaim()
    harness.ledger.task_absent("job", "claim-2", 7.0)
    harness.advance(7)
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]


def test_a_list_call_begun_too_early_proves_nothing_when_reported_later(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.stop()
    harness.advance(ABSENCE_PROVABLE_AFTER - 0.125)
    harness.reclaim()
    harness.advance(1)
    assert harness.ledger.task_absent("job", "claim-2", 30.0).code is ResultCode.TOO_EARLY
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]
    assert harness.reclaim("claim-3").code is ResultCode.LIST_TASKS
    assert harness.ledger.task_absent("job", "claim-3", 30.0).code is ResultCode.ENDED


def test_nothing_found_after_h_revokes_a_stopped_record(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.make_list_only()
    assert harness.ledger.task_absent("job", "claim-2", 2.0).code is ResultCode.ENDED
    record = harness.get_record()
    assert (record.state, record.attempts, record.reason) == (State.REVOKED, 0, "stopped by ann")


def test_nothing_found_after_h_expires_an_expired_record(harness: LedgerHarness) -> None:
    harness.make_launching(expires_at=START + 60)
    harness.advance(ABSENCE_PROVABLE_AFTER)
    harness.reclaim()
    assert harness.ledger.task_absent("job", "claim-2", 2.0).code is ResultCode.ENDED
    assert (harness.get_state(), harness.get_record().attempts) == (State.EXPIRED, 0)


def test_nothing_found_after_h_takes_the_next_number(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(30)
    harness.reclaim("claim-2")
    harness.ledger.refused("job", "claim-2", *make_refusal(RefusalKind.CAPACITY))
    harness.advance(ABSENCE_PROVABLE_AFTER)
    assert harness.reclaim("claim-3").code is ResultCode.LIST_TASKS
    assert harness.ledger.task_absent("job", "claim-3", 2.0).code is ResultCode.REQUEUED
    record = harness.get_record()
    assert (record.state, record.launch, record.attempt) == (State.QUEUED, 2, 1)
    assert record.not_before == START + 30 + ABSENCE_PROVABLE_AFTER + 2
    assert (record.ambiguous, record.retired, record.args, record.first_called_at) == (False, False, "", 0.0)


@pytest.mark.parametrize(("age", "code"), [(60 * MINUTE, ResultCode.REQUEUED), (60 * MINUTE + 0.125, ResultCode.ENDED)])
def test_beyond_an_hour_nothing_found_is_unknown(harness: LedgerHarness, age: float, code: ResultCode) -> None:
    harness.make_launching()
    harness.advance(age)
    assert harness.reclaim().code is ResultCode.LIST_TASKS
    assert harness.ledger.task_absent("job", "claim-2", 2.0).code is code
    if code is ResultCode.ENDED:
        assert (harness.get_state(), harness.get_record().attempts) == (State.UNKNOWN, 1)


@pytest.mark.parametrize("why", ["stopped", "expired", "retired"])
def test_beyond_an_hour_stopped_expired_and_retired_records_are_unknown_too(harness: LedgerHarness, why: str) -> None:
    harness.make_launching(expires_at=START + 60 if why == "expired" else 0.0)
    if why == "stopped":
        harness.stop()
    harness.advance(30)
    if why == "retired":
        harness.reclaim("claim-2")
        harness.ledger.refused("job", "claim-2", *make_refusal(RefusalKind.CAPACITY))
    harness.advance(HOUR)
    assert harness.reclaim("claim-3").code is ResultCode.LIST_TASKS
    assert harness.ledger.task_absent("job", "claim-3", 2.0).code is ResultCode.ENDED
    assert harness.get_state() is State.UNKNOWN


def test_a_listed_task_is_launched_and_no_longer_ambiguous(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.make_list_only()
    assert harness.ledger.launched("job", "nonce-01", 1, "arn:1", 5.0).code is ResultCode.OK
    record = harness.get_record()
    assert (record.state, record.ambiguous, record.stop_requested_by) == (State.LAUNCHED, False, "ann")


def test_a_claim_token_of_an_earlier_launch_is_lost(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.CAPACITY))
    harness.advance(2)
    harness.ledger.claim("job", claim_request("claim-2"))
    assert harness.ledger.no_effect("job", "claim-1", 0.0, "late").code is ResultCode.CLAIM_LOST
    assert harness.get_record().claim == "claim-2"


def test_an_unprovable_absence_ends_unknown_with_the_callers_advice(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(HOUR + 1.0)
    harness.reclaim("late")

    assert harness.ledger.task_absent("job", "late", 1.0, "grant ecs:ListTasks").code is ResultCode.ENDED

    assert harness.get_state() is State.UNKNOWN
    assert harness.get_record().reason.endswith("after an hour ECS cannot show it: grant ecs:ListTasks")


def test_a_launch_that_is_given_back_is_rendered_anew_and_uses_no_attempt(harness: LedgerHarness) -> None:
    harness.make_launching()
    result = harness.ledger.refused("job", "claim-1", *make_refusal(RefusalKind.GIVEN_BACK, max_attempts=1))
    assert result.code is ResultCode.REQUEUED
    record = harness.get_record()
    assert (record.state, record.launch, record.attempt) == (State.QUEUED, 2, 1)
    assert (record.args, record.target, record.not_before) == ("", "", START + 2)
