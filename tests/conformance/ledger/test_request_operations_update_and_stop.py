"""Role `RequestOperations`: update_tasks and stop."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.protocol.operations import ONLY_QUEUED, ResultCode
from ecs_queue.protocol.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT
from ecs_queue.protocol.states import TERMINAL_STATES, State
from tests.conformance.ledger.harness import DAY, LedgerHarness, claim_request, make_submission, task_update
from tests.fake_clock import START


def test_a_stop_of_what_waits_never_touches_what_was_launched(harness: LedgerHarness) -> None:
    harness.ledger.put([make_submission("waits")])
    assert harness.stop("waits", launch=ONLY_QUEUED).code is ResultCode.ENDED
    assert harness.get_record("waits").state is State.REVOKED
    assert harness.stop("waits", launch=ONLY_QUEUED).code is ResultCode.UNCHANGED
    assert harness.stop("unknown", launch=ONLY_QUEUED).code is ResultCode.NOT_FOUND
    assert harness.ledger.get(["unknown"]) == [None], "no tombstone"
    claimed, launched = harness.make_launching("claimed"), harness.make_launched("launched")
    for name, state in ((claimed.id, State.LAUNCHING), (launched.id, State.LAUNCHED)):
        assert harness.stop(name, launch=ONLY_QUEUED).code is ResultCode.STALE
        record = harness.get_record(name)
        assert (record.state, record.stop_requested_by, record.stop_requested_at) == (state, "", 0.0)


def test_a_running_task_is_stored_and_polled_again_after_the_wait(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    result = harness.update_task(record, 3, wait=10.0, started_at=START + 0.5)
    assert result.code is ResultCode.OK
    record = harness.get_record()
    assert (record.version, record.last_status, record.started_at) == (3, "RUNNING", START + 0.5)
    harness.advance(9.875)
    assert harness.ledger.lease_due(10) == []
    harness.advance(0.125)
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]


def test_a_start_once_seen_is_not_forgotten(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.update_task(record, 1, started_at=START + 1)
    harness.update_task(record, 2, started_at=0.0)
    assert harness.get_record().started_at == START + 1


@pytest.mark.parametrize("version", [0, 2, 3])
def test_an_older_or_equal_version_is_stale(harness: LedgerHarness, version: int) -> None:
    record = harness.make_launched()
    harness.update_task(record, 3)
    before = harness.get_record()
    assert harness.update_task(record, version).code is ResultCode.STALE
    assert harness.get_record() == before


@pytest.mark.parametrize("version", [0, 1])
def test_at_one_version_the_later_status_wins(harness: LedgerHarness, version: int) -> None:
    record = harness.make_launched()
    assert harness.update_task(record, version, last_status="PENDING").code is ResultCode.OK
    assert harness.update_task(record, version, last_status="RUNNING").code is ResultCode.OK
    assert harness.update_task(record, version, last_status="PENDING").code is ResultCode.STALE
    assert harness.update_task(record, version, last_status="DEPROVISIONING").code is ResultCode.OK
    result = harness.update_task(record, version, end_state=State.FAILED, exit_code=3)
    assert result.code is ResultCode.ENDED
    assert harness.get_record().exit_code == 3


@pytest.mark.parametrize("version", [0, 2, 3, 4])
@pytest.mark.parametrize("status", ["STOPPED", "DELETED"])
def test_the_end_of_a_task_is_believed_whatever_its_version(harness: LedgerHarness, version: int, status: str) -> None:
    record = harness.make_launched()
    harness.update_task(record, 3)
    result = harness.update_task(record, version, last_status=status, end_state=State.SUCCESS, exit_code=0)
    assert (result.code, harness.get_record().exit_code) == (ResultCode.ENDED, 0)


def test_a_start_that_is_shown_late_is_stored_at_the_same_version(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.update_task(record, 1)
    assert harness.update_task(record, 1, started_at=START + 1).code is ResultCode.OK
    assert harness.get_record().started_at == START + 1


@pytest.mark.parametrize("version", [0, 3])
def test_an_end_that_was_not_observed_counts_until_something_later_was(harness: LedgerHarness, version: int) -> None:
    record = harness.make_launched()
    harness.update_task(record, version, last_status="PENDING")
    lost = {"last_status": "PENDING", "end_state": State.UNKNOWN}
    harness.update_task(record, version, last_status="RUNNING")
    assert harness.update_task(record, version, **lost).code is ResultCode.STALE
    lost["last_status"] = "RUNNING"
    assert harness.update_task(record, version, **lost).code is ResultCode.ENDED


def test_an_unversioned_update_keeps_the_version(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.update_task(record, 3, last_status="PENDING")
    assert harness.update_task(record, 0, last_status="RUNNING").code is ResultCode.OK
    assert harness.get_record().version == 3


def test_an_update_of_another_launch_or_task_is_stale(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    assert harness.update_task(record, launch=2, end_state=State.FAILED).code is ResultCode.STALE
    assert harness.update_task(record, arn="arn:other", end_state=State.FAILED).code is ResultCode.STALE
    assert harness.get_record() == record


def test_an_update_of_what_is_not_launched_is_stale_or_not_found(harness: LedgerHarness) -> None:
    record = harness.make_launching()
    assert harness.update_task(record, end_state=State.FAILED).code is ResultCode.STALE
    assert harness.update_task(record, id="unknown", end_state=State.FAILED).code is ResultCode.NOT_FOUND


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES))
def test_an_ended_task_ends_the_record_with_its_reason(harness: LedgerHarness, state: State) -> None:
    record = harness.make_launched()
    harness.update_task(record, 1, started_at=START + 1)
    harness.advance(20)
    result = harness.update_task(
        record,
        2,
        end_state=state,
        exit_code=3,
        stop_code="EssentialContainerExited",
        reason="exit 3",
        finished_at=START + 9,
    )
    assert result.code is ResultCode.ENDED
    assert result.record == harness.get_record()
    record = harness.get_record()
    assert (record.state, record.exit_code, record.stop_code) == (state, 3, "EssentialContainerExited")
    assert (record.reason, record.finished_at, record.attempts) == ("exit 3", START + 9, 1)
    assert (record.started_at, record.arn, record.undelivered) == (START + 1, "arn:1", True)


def test_the_end_scrubs_the_payload_and_leaves_the_live_indexes(harness: LedgerHarness) -> None:
    record = harness.make_ended()
    assert (record.request, record.args, record.exit_code) == (b"", "", 0)
    assert harness.ledger.find_id_by_arn(record.arn) is None
    harness.advance(DAY)
    assert harness.ledger.lease_due(10) == []


def test_an_end_without_its_time_has_the_ledgers(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.advance(7)
    harness.update_task(record, end_state=State.SUCCESS)
    assert harness.get_record().finished_at == START + 7
    assert harness.get_record().exit_code is None


def test_a_finished_record_never_moves_again(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.update_task(record, 1, end_state=State.SUCCESS)
    before = harness.get_record()
    assert harness.update_task(record, 9, end_state=State.FAILED).code is ResultCode.STALE
    assert harness.stop().code is ResultCode.UNCHANGED
    assert harness.ledger.claim("job", claim_request()).code is ResultCode.NOT_CLAIMABLE
    assert harness.ledger.launched("job", "nonce-01", 1, "arn:9", 0.0).code is ResultCode.UNWANTED
    assert harness.get_record() == before


def test_a_retry_takes_the_next_number_and_attempt_and_forgets_the_task(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.update_task(record, 1, started_at=START + 1)
    result = harness.update_task(
        record, 2, end_state=State.FAILED, may_relaunch=True, max_attempts=2, wait=4.0, reason="host lost"
    )
    assert result.code is ResultCode.REQUEUED
    record = harness.get_record()
    assert (record.state, record.launch, record.attempt) == (State.QUEUED, 2, 2)
    assert (record.requeued_at, record.not_before, record.reason) == (START, START + 4, "host lost")
    assert (record.arn, record.version, record.last_status) == ("", 0, "")
    assert (record.started_at, record.launched_at, record.args, record.target) == (0.0, 0.0, "", "")
    assert record.request == make_submission().request
    assert harness.ledger.find_id_by_arn("arn:1") is None


def test_the_old_task_of_a_retry_is_stale(harness: LedgerHarness) -> None:
    old = harness.make_launched()
    harness.update_task(old, 1, end_state=State.FAILED, may_relaunch=True, max_attempts=2)
    assert harness.update_task(old, 2, end_state=State.SUCCESS).code is ResultCode.STALE
    harness.advance(10)
    harness.ledger.claim("job", claim_request("claim-2"))
    harness.ledger.launched("job", "nonce-01", 2, "arn:2", 1.0)
    assert harness.update_task(old, 3, end_state=State.SUCCESS).code is ResultCode.STALE
    assert harness.update_task(harness.get_record(), 1, end_state=State.SUCCESS).code is ResultCode.ENDED
    assert harness.get_record().attempts == 2


def test_without_attempts_left_there_is_no_retry(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    assert (
        harness.update_task(record, end_state=State.REMOVED, may_relaunch=True, max_attempts=1).code is ResultCode.ENDED
    )
    assert harness.get_state() is State.REMOVED


def test_a_stopped_record_is_not_retried(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.stop()
    assert (
        harness.update_task(record, end_state=State.FAILED, may_relaunch=True, max_attempts=5, reason="exit 1").code
        is ResultCode.ENDED
    )
    assert (harness.get_state(), harness.get_record().reason) == (State.FAILED, "exit 1")


def test_a_stopped_task_is_revoked_only_if_ecs_says_so(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.stop()
    harness.update_task(record, end_state=State.FAILED, stopped_by_user=True, exit_code=137)
    record = harness.get_record()
    assert (record.state, record.reason, record.exit_code) == (State.REVOKED, "stopped by ann", 137)


def test_a_task_that_ran_to_its_end_before_the_stop_keeps_its_real_end(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.stop()
    harness.update_task(record, end_state=State.SUCCESS, exit_code=0)
    assert harness.get_state() is State.SUCCESS


def test_a_stop_that_was_not_requested_here_revokes_nothing(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.update_task(record, end_state=State.FAILED, stopped_by_user=True, reason="stopped in the console")
    assert (harness.get_state(), harness.get_record().reason) == (State.FAILED, "stopped in the console")


def test_a_task_stopped_at_its_time_limit_has_failed(harness: LedgerHarness) -> None:
    record = harness.make_launched(time_limit=90.5)
    harness.stop(requested_by=STOPPED_BY_TIME_LIMIT, launch=1)
    harness.update_task(record, end_state=State.FAILED, stopped_by_user=True, exit_code=137)
    assert harness.get_state() is State.FAILED
    assert "time limit of 90.5 s" in harness.get_record().reason


def test_a_task_stopped_at_its_deadline_is_expired_unless_it_had_started(harness: LedgerHarness) -> None:
    for name, started_at, state in (("late", 0.0, State.EXPIRED), ("started", START + 1, State.FAILED)):
        record = harness.make_launched(name, arn=f"arn:{name}", expires_at=START + 60)
        harness.stop(name, requested_by=STOPPED_BY_EXPIRY, launch=1)
        harness.update_task(record, end_state=State.REMOVED, stopped_by_user=True, started_at=started_at)
        assert harness.get_state(name) is state
        assert "deadline" in harness.get_record(name).reason


def test_a_batch_of_updates_returns_results_in_order(harness: LedgerHarness) -> None:
    one, two = harness.make_launched("one", arn="arn:one"), harness.make_launched("two", arn="arn:two")
    batch = [task_update(one), task_update(two, end_state=State.SUCCESS), task_update(one, 1), task_update(two, 2)]
    codes = [result.code for result in harness.ledger.update_tasks(batch)]
    assert codes == [ResultCode.OK, ResultCode.ENDED, ResultCode.STALE, ResultCode.STALE]
    assert harness.ledger.update_tasks([]) == []


def test_a_stop_ends_a_queued_record_at_once(harness: LedgerHarness) -> None:
    harness.make_queued()
    result = harness.stop()
    assert result.code is ResultCode.ENDED
    assert result.record is not None
    assert (result.record.state, result.record.attempts, result.record.reason) == (State.REVOKED, 0, "stopped by ann")
    assert (result.record.stop_requested_by, result.record.stop_requested_at, result.record.undelivered) == (
        "ann",
        START,
        True,
    )
    harness.advance(DAY)
    assert harness.ledger.lease_unclaimed("default", 10) == []


def test_a_stop_between_two_attempts_counts_the_attempt_that_was_made(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.update_task(record, end_state=State.FAILED, may_relaunch=True, max_attempts=3)
    harness.stop()
    assert (harness.get_state(), harness.get_record().attempts) == (State.REVOKED, 1)


def test_a_stop_marks_a_launched_record_and_makes_it_due(harness: LedgerHarness) -> None:
    harness.make_launched()
    result = harness.stop()
    assert result.code is ResultCode.STOP_REQUESTED
    assert result.record is not None
    assert (result.record.state, result.record.arn) == (State.LAUNCHED, "arn:1")
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]


def test_a_stop_leaves_the_lease_and_the_record_is_due_when_it_is_over(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.advance(10)
    assert harness.stop().code is ResultCode.STOP_REQUESTED
    harness.advance(19.875)
    assert harness.ledger.lease_due(10) == []
    harness.advance(0.125)
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]


def test_a_stop_of_an_ambiguous_launch_is_due_at_once(harness: LedgerHarness) -> None:
    harness.make_launching()
    harness.ledger.call_ambiguous("job", "claim-1", 60.0, "timed out")
    harness.stop()
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]
    assert harness.reclaim().code is ResultCode.LIST_TASKS


def test_the_first_stop_names_who_stopped_it(harness: LedgerHarness) -> None:
    harness.make_launched()
    harness.stop(requested_by="ann")
    harness.advance(5)
    harness.stop(requested_by="bob")
    assert (harness.get_record().stop_requested_by, harness.get_record().stop_requested_at) == ("ann", START)


@pytest.mark.parametrize("launch", [1, 2])
def test_a_stop_of_one_launch_spares_every_other_state_and_number(harness: LedgerHarness, launch: int) -> None:
    harness.make_queued("queued")
    harness.make_launching("launching")
    record = harness.make_launched("launched", arn="arn:launched")
    codes = [
        result.code for result in harness.ledger.stop(["queued", "launching", "launched", "unknown"], "expiry", launch)
    ]
    last = ResultCode.STOP_REQUESTED if launch == record.launch else ResultCode.STALE
    assert codes == [ResultCode.STALE, ResultCode.STALE, last, ResultCode.NOT_FOUND]
    assert harness.get_state("queued") is State.QUEUED
    assert harness.ledger.get(["unknown"]) == [None]


def test_a_stop_during_a_poll_is_not_postponed_by_its_update(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.advance(1)
    assert len(harness.ledger.lease_due(10)) == 1
    harness.stop()
    harness.update_task(record, wait=600.0)
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]
    harness.stop()
    harness.ledger.reschedule_poll({"job": 600.0})
    assert [record.id for record in harness.ledger.lease_due(10)] == ["job"]


def test_after_the_poll_that_carries_out_a_stop_waits_count_again(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    harness.stop()
    assert len(harness.ledger.lease_due(10)) == 1
    harness.update_task(record, wait=5.0)
    assert harness.ledger.lease_due(10) == []
    harness.advance(5)
    assert len(harness.ledger.lease_due(10)) == 1
    harness.ledger.reschedule_poll({"job": 5.0})
    assert harness.ledger.lease_due(10) == []


def test_a_stop_before_the_request_leaves_a_tombstone_that_revokes_it(harness: LedgerHarness) -> None:
    assert harness.stop().code is ResultCode.ENDED
    assert (harness.get_state(), harness.get_record().undelivered) == (State.REVOKED, False)
    result = harness.ledger.put([make_submission()])[0]
    assert result.code is ResultCode.ENDED
    assert result.record is not None
    assert (result.record.state, result.record.nonce, result.record.owner) == (State.REVOKED, "nonce-01", "airflow")
    assert result.record == harness.get_record()
    assert [record.id for record in harness.ledger.list_undelivered("airflow", 10)] == ["job"]
    assert harness.ledger.put([make_submission()])[0].code is ResultCode.UNCHANGED
    assert harness.ledger.put([make_submission(digest="e" * 32)])[0].code is ResultCode.CONFLICT


def test_a_batch_of_stops_returns_results_in_order(harness: LedgerHarness) -> None:
    harness.make_queued("one")
    harness.make_launched("two")
    results = harness.ledger.stop(["two", "one", "three", "one"], "ann")
    assert [result.code for result in results] == [
        ResultCode.STOP_REQUESTED,
        ResultCode.ENDED,
        ResultCode.ENDED,
        ResultCode.UNCHANGED,
    ]
    assert [result.record.id for result in results if result.record] == ["two", "one", "three", "one"]


def test_an_end_that_counts_no_attempt_is_launched_again_however_few_attempts_are_left(harness: LedgerHarness) -> None:
    end: dict[str, Any] = {"end_state": State.REMOVED, "may_relaunch": True, "max_attempts": 1, "counts_attempt": False}
    record = harness.make_launched()
    for launch in (2, 3):
        assert harness.update_task(record, reason="no room", **end).code is ResultCode.REQUEUED
        record = harness.get_record()
        assert (record.state, record.launch, record.attempt, record.reason) == (State.QUEUED, launch, 1, "no room")
        assert (record.args, record.target, record.not_before) == ("", "", harness.clock.now + 10)
        harness.advance(10)
        harness.ledger.claim("job", claim_request(f"claim-{launch}"))
        harness.ledger.launched("job", record.nonce, launch, f"arn:{launch}", 1.0)
        record = harness.get_record()
    harness.stop()
    assert harness.update_task(record, **end).code is ResultCode.ENDED
    assert harness.get_state() is State.REMOVED
