"""Records are brought in line with their runs, and with what ECS says of the runners' tasks."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_queue.protocol.operations import ResultCode, SettleRequest
from ecs_queue.protocol.record import STOPPED_BY_TIME_LIMIT
from ecs_queue.protocol.runs import NoTurn, RunEnd, RunPhase, Turn
from ecs_queue.protocol.states import State
from tests.conformance.ledger.harness import SETTINGS, LedgerHarness, task_update
from tests.conformance.ledger.runner_harness import (
    ARN,
    delete_run,
    end_task,
    make_idle,
    mark_stop,
    settle,
    start_launch,
    start_runner,
    warm_claim,
)
from tests.fake_clock import START

CANCELLED = RunEnd(turn=1, exit_code=143, cancelled=True)


def exited(exit_code: int, turn: int = 1) -> RunEnd:
    return RunEnd(turn=turn, exit_code=exit_code)


def assign_second(harness: LedgerHarness, **fields: Any) -> Any:
    """A warm runner that has not taken its second request, "job"."""
    runner = make_idle(harness)
    harness.make_queued(**fields)
    assert harness.ledger.claim("job", warm_claim()).code is ResultCode.ASSIGNED
    return runner


def test_a_runner_may_fetch_before_the_answer_of_its_launch_is_recorded(harness: LedgerHarness) -> None:
    start_launch(harness).next()

    assert settle(harness).code is ResultCode.OK
    record = harness.get_record()
    assert (record.state, record.arn, record.launched_at, record.started_at) == (State.LAUNCHED, ARN, START, START)
    assert not record.claim


@pytest.mark.parametrize(("exit_code", "state"), [(0, State.SUCCESS), (3, State.FAILED)])
def test_the_reported_end_is_the_end(harness: LedgerHarness, exit_code: int, state: State) -> None:
    runner = start_launch(harness)
    runner.next()
    harness.advance(5.0)
    runner.next(exited(exit_code))

    assert settle(harness).code is ResultCode.ENDED
    record = harness.get_record()
    assert (record.state, record.exit_code, record.attempts) == (state, exit_code, 1)
    assert (record.started_at, record.finished_at) == (START, START + 5.0)
    run = runner.run
    assert (run.phase, run.id, run.payload, run.closed) == (RunPhase.IDLE, "", "", "")
    assert settle(harness).code is ResultCode.STALE


@pytest.mark.parametrize(
    ("by", "state"), [("ann", State.REVOKED), (STOPPED_BY_TIME_LIMIT, State.FAILED), ("", State.FAILED)]
)
def test_a_cancelled_end_is_explained_by_who_stopped_it(harness: LedgerHarness, by: str, state: State) -> None:
    runner = start_runner(harness)
    if by:
        harness.stop("job", by, 1)
    runner.next(CANCELLED)

    assert settle(harness).code is ResultCode.ENDED
    assert (harness.get_state(), harness.get_record().exit_code) == (state, 143)


def test_a_failed_command_is_relaunched_by_its_policy(harness: LedgerHarness) -> None:
    runner = start_runner(harness, relaunch="any_failure")
    runner.next(exited(1))

    assert settle(harness, wait=4.0).code is ResultCode.REQUEUED
    record = harness.get_record()
    assert (record.state, record.launch, record.attempt, record.run) == (State.QUEUED, 2, 2, "")
    assert (record.requeued_at, record.not_before) == (START, START + 4.0)
    assert runner.run.phase is RunPhase.IDLE


def test_a_stopped_command_that_failed_is_not_relaunched(harness: LedgerHarness) -> None:
    runner = start_runner(harness, relaunch="any_failure")
    runner.next(exited(1))
    harness.stop()

    assert settle(harness).code is ResultCode.ENDED
    assert harness.get_state() is State.FAILED


def test_only_the_end_that_was_read_is_taken(harness: LedgerHarness) -> None:
    runner = start_runner(harness)
    runner.next(exited(0))

    for end in (None, exited(1), exited(0, turn=2), CANCELLED):
        result = harness.ledger.settle([SettleRequest(id="job", end=end, is_verified=True)])[0]
        assert result.code is ResultCode.END_UNREAD
    assert harness.get_state() is State.LAUNCHED


def test_an_end_that_does_not_verify_counts_as_not_reported(harness: LedgerHarness) -> None:
    runner = start_runner(harness)
    runner.next(exited(0))

    assert settle(harness, is_verified=False).code is ResultCode.OK
    assert runner.run.phase is RunPhase.FETCHED
    runner.next(exited(1))
    assert settle(harness).code is ResultCode.ENDED
    assert harness.get_state() is State.FAILED


def test_a_closed_run_is_not_assigned_after_its_end(harness: LedgerHarness) -> None:
    runner = start_runner(harness)
    runner.leave(exited(0))
    settle(harness)
    harness.make_queued("next")

    assert harness.ledger.claim("next", warm_claim(may_call=False)).code is ResultCode.NO_RUNNER


def test_a_command_that_was_not_taken_in_time_goes_to_another_launch(harness: LedgerHarness) -> None:
    runner = assign_second(harness)
    harness.advance(SETTINGS.runner_ttl - 0.1)
    assert settle(harness).code is ResultCode.OK
    harness.advance(0.1)

    assert settle(harness).code is ResultCode.REQUEUED
    record = harness.get_record()
    assert (record.state, record.launch, record.attempt, record.arn) == (State.QUEUED, 2, 1, "")
    assert runner.next() is NoTurn.LEAVE
    assert [due.id for due in harness.ledger.lease_due_retries("default", 10)] == ["job"]


@pytest.mark.parametrize("is_warm", [True, False])
def test_an_expired_request_that_no_runner_took_ends_expired(harness: LedgerHarness, is_warm: bool) -> None:
    runner = (assign_second if is_warm else start_launch)(harness, expires_at=START + 5)
    harness.advance(5.0)

    assert settle(harness).code is ResultCode.ENDED
    assert (harness.get_state(), harness.get_record().attempts) == (State.EXPIRED, 0)
    assert runner.next() is NoTurn.LEAVE


def test_the_time_limit_counts_from_when_the_command_was_taken(harness: LedgerHarness) -> None:
    runner = start_runner(harness, time_limit=10.0)
    runner.beat()
    harness.advance(9.9)
    runner.beat()
    assert settle(harness).code is ResultCode.OK
    assert not runner.beat()

    harness.advance(0.1)
    assert [due.id for due in harness.ledger.lease_due(10)] == ["job"]
    assert settle(harness).code is ResultCode.OK
    assert runner.beat()
    assert harness.get_record().stop_requested_by == STOPPED_BY_TIME_LIMIT


def test_a_runner_that_does_not_end_a_stopped_command_is_closed_before_its_task_is_stopped(
    harness: LedgerHarness,
) -> None:
    runner = start_runner(harness)
    harness.stop()
    harness.advance(SETTINGS.stop_timeout + 10)

    result = settle(harness)

    assert result.code is ResultCode.STOP_TASK
    assert result.record is not None
    assert result.record.arn == ARN
    assert runner.run.closed == "stop"


def test_a_stop_that_an_older_client_has_only_marked_is_carried_out(harness: LedgerHarness) -> None:
    runner = start_runner(harness)
    mark_stop(harness, "job")
    assert settle(harness).code is ResultCode.OK
    assert runner.beat()

    start_launch(harness, "b")
    mark_stop(harness, "b")
    assert settle(harness, "b").code is ResultCode.ENDED
    assert harness.get_state("b") is State.REVOKED


def test_a_silent_runner_is_looked_up_on_ecs(harness: LedgerHarness) -> None:
    runner = start_runner(harness)
    assert settle(harness).code is ResultCode.OK
    harness.advance(SETTINGS.runner_ttl)
    assert settle(harness).code is ResultCode.DESCRIBE_TASK

    runner.beat()
    assert settle(harness).code is ResultCode.OK
    assert harness.ledger.lease_due(10) == []


def test_a_task_whose_runner_has_not_come_is_looked_up_on_ecs(harness: LedgerHarness) -> None:
    start_launch(harness)
    harness.ledger.launched("job", "nonce-01", 1, ARN, 1.0)

    assert settle(harness).code is ResultCode.DESCRIBE_TASK


def test_a_record_without_a_run_is_left_alone(harness: LedgerHarness) -> None:
    harness.make_launched()

    request = SettleRequest(id="job")
    assert harness.ledger.settle([request])[0].code is ResultCode.STALE
    assert harness.ledger.settle([SettleRequest(id="unknown")])[0].code is ResultCode.NOT_FOUND
    assert harness.ledger.update_runner_tasks([task_update(harness.get_record())])[0].code is ResultCode.STALE


def test_a_running_task_ends_nothing_and_its_start_is_not_the_request_s(harness: LedgerHarness) -> None:
    start_launch(harness)
    harness.ledger.launched("job", "nonce-01", 1, ARN, 1.0)
    update = task_update(harness.get_record(), started_at=START - 5)

    assert harness.ledger.update_tasks([update])[0].code is ResultCode.STALE
    assert harness.ledger.update_runner_tasks([update])[0].code is ResultCode.OK
    record = harness.get_record()
    assert (record.last_status, record.started_at) == ("RUNNING", 0.0)
    assert harness.ledger.update_runner_tasks([update])[0].code is ResultCode.OK, "started_at is never known"


def test_a_runner_whose_task_stops_before_it_took_anything_is_a_failed_start(harness: LedgerHarness) -> None:
    for attempt in (1, 2, 3):
        if attempt == 1:
            start_launch(harness)
        else:
            harness.advance(10.0)
            harness.ledger.claim("job", warm_claim(f"claim-{attempt}"))
        harness.ledger.launched("job", "nonce-01", attempt, f"arn:{attempt}", 1.0)
        code = end_task(harness, state=State.REMOVED).code
        assert code is (ResultCode.REQUEUED if attempt < 3 else ResultCode.ENDED)
    assert (harness.get_state(), harness.get_record().attempts) == (State.REMOVED, 3)


def test_a_request_that_an_older_client_has_marked_to_stop_is_not_queued_again_when_the_task_stops(
    harness: LedgerHarness,
) -> None:
    start_launch(harness)
    harness.ledger.launched("job", "nonce-01", 1, ARN, 1.0)
    mark_stop(harness, "job")

    assert end_task(harness).code is ResultCode.ENDED
    assert harness.get_state() is State.REVOKED


def test_a_warm_runner_whose_task_stops_before_it_took_the_next_request_costs_no_attempt(
    harness: LedgerHarness,
) -> None:
    runner = assign_second(harness)

    assert end_task(harness).code is ResultCode.REQUEUED
    record = harness.get_record()
    assert (record.launch, record.attempt, record.reason) == (2, 1, "gone")
    assert runner.next() is NoTurn.LEAVE


@pytest.mark.parametrize(
    ("fields", "state", "reason"),
    [
        ({"state": State.SUCCESS}, State.FAILED, "the runner stopped before it reported"),
        ({"state": State.UNKNOWN}, State.UNKNOWN, "gone"),
        ({"stopped_by_user": True}, State.FAILED, "the runner stopped before it reported"),
    ],
    ids=["exit 0", "missing", "stopped by hand"],
)
def test_a_task_that_stops_while_its_command_runs_never_ends_in_success(
    harness: LedgerHarness, fields: dict[str, Any], state: State, reason: str
) -> None:
    runner = start_runner(harness)

    assert end_task(harness, **fields).code is ResultCode.ENDED
    record = harness.get_record()
    assert (record.state, record.exit_code) == (state, None)
    assert record.reason.startswith(reason)
    assert runner.run.closed == "task_stopped"


def test_a_stopped_request_whose_task_was_stopped_is_revoked(harness: LedgerHarness) -> None:
    start_runner(harness)
    harness.stop()

    assert end_task(harness, stopped_by_user=True).code is ResultCode.ENDED
    assert harness.get_state() is State.REVOKED


def test_a_request_whose_host_was_lost_is_relaunched_by_its_policy(harness: LedgerHarness) -> None:
    start_runner(harness, relaunch="interrupted")

    assert end_task(harness, may_relaunch=True).code is ResultCode.REQUEUED
    assert harness.get_record().attempt == 2


def test_a_request_that_must_start_once_is_not_relaunched(harness: LedgerHarness) -> None:
    start_runner(harness)

    assert end_task(harness, may_relaunch=True).code is ResultCode.ENDED
    assert harness.get_state() is State.FAILED


def test_a_report_counts_more_than_the_end_of_the_task(harness: LedgerHarness) -> None:
    start_runner(harness).leave(exited(0))

    assert end_task(harness).code is ResultCode.STALE
    assert [due.id for due in harness.ledger.lease_due(10)] == ["job"]
    assert settle(harness).code is ResultCode.ENDED
    assert harness.get_state() is State.SUCCESS


def test_the_end_of_another_task_than_the_runner_s_ends_nothing(harness: LedgerHarness) -> None:
    runner = start_launch(harness)
    harness.ledger.launched("job", "nonce-01", 1, "arn:double", 1.0)
    assert isinstance(runner.next(), Turn)

    assert end_task(harness).code is ResultCode.STALE
    assert settle(harness).code is ResultCode.OK
    assert harness.get_record().arn == ARN


def test_a_task_whose_run_is_lost_ends_its_request(harness: LedgerHarness) -> None:
    runner = start_runner(harness)
    delete_run(harness, runner.name)

    assert settle(harness).code is ResultCode.DESCRIBE_TASK
    assert end_task(harness).code is ResultCode.ENDED
    assert harness.get_state() is State.FAILED
