"""What the operations on a request do with the run that has its launch."""

from __future__ import annotations

import pytest

from ecs_queue.protocol.operations import RefusalKind, ResultCode
from ecs_queue.protocol.runs import NoTurn, RunEnd, RunPhase, Turn
from ecs_queue.protocol.states import State
from tests.conformance.ledger.harness import MINUTE, SETTINGS, LedgerHarness, make_refusal
from tests.conformance.ledger.runner_harness import (
    ARN,
    delete_run,
    make_idle,
    make_runner,
    mark_stop,
    read_run,
    set_fields,
    settle,
    start_launch,
    start_runner,
    warm_claim,
)
from tests.fake_clock import START

OWN_RUN = "job.nonce-01.1"


def test_a_claim_without_an_idle_runner_makes_the_run_of_its_launch(harness: LedgerHarness) -> None:
    harness.make_queued(time_limit=90.5)

    result = harness.ledger.claim("job", warm_claim())

    assert result.code is ResultCode.RUN_TASK
    record, run = harness.get_record(), read_run(harness, OWN_RUN)
    assert (record.state, record.run) == (State.LAUNCHING, OWN_RUN)
    assert run is not None
    assert (run.phase, run.turn, run.boot, run.pool, run.target) == (RunPhase.ASSIGNED, 1, "", "p", "here")
    assert (run.id, run.nonce, run.launch, run.payload, run.time_limit) == ("job", "nonce-01", 1, "the command", 90.5)


def test_a_claim_that_may_not_call_writes_nothing_without_an_idle_runner(harness: LedgerHarness) -> None:
    before = harness.make_queued()

    assert harness.ledger.claim("job", warm_claim(may_call=False)).code is ResultCode.NO_RUNNER
    assert harness.get_record() == before
    assert harness.ledger.claim("job", warm_claim()).code is ResultCode.RUN_TASK


def test_a_claim_gives_the_request_to_an_idle_runner(harness: LedgerHarness) -> None:
    runner = make_idle(harness)
    harness.make_queued()

    result = harness.ledger.claim("job", warm_claim(may_call=False, payload="another"))

    assert result.code is ResultCode.ASSIGNED
    record = harness.get_record()
    assert (record.state, record.run, record.arn, record.launch) == (State.LAUNCHED, runner.name, ARN, 1)
    assert (record.target, record.max_attempts, record.spec_version) == ("here", 3, 2)
    assert harness.ledger.find_id_by_arn(ARN) == "job"
    runner.operations.wait_for_wake(runner.name, 0.01)  # it was woken: else the next call would say so only later
    assert runner.next() == Turn(turn=2, id="job", nonce="nonce-01", launch=1, payload="another")


def test_the_same_claim_again_gets_the_same_runner(harness: LedgerHarness) -> None:
    make_idle(harness)
    harness.make_queued()
    first = harness.ledger.claim("job", warm_claim())

    assert harness.ledger.claim("job", warm_claim()) == first


def test_the_runner_that_was_used_last_is_assigned_first(harness: LedgerHarness) -> None:
    runners = [start_runner(harness, record_id) for record_id in ("one", "two", "three")]
    for runner, record_id in ((runners[0], "one"), (runners[2], "three"), (runners[1], "two")):
        harness.advance(1.0)
        runner.next(RunEnd(turn=1, exit_code=0))
        settle(harness, record_id)
    harness.make_queued()

    harness.ledger.claim("job", warm_claim())
    assert harness.get_record().run == runners[1].name


@pytest.mark.parametrize(
    "fields", [{"pool": "other"}, {"target": "elsewhere"}, {"pool": ""}], ids=["pool", "target", "cold"]
)
def test_a_runner_of_another_pool_or_target_is_not_assigned(harness: LedgerHarness, fields: dict[str, str]) -> None:
    make_idle(harness)
    harness.make_queued()

    assert harness.ledger.claim("job", warm_claim(**fields)).code is ResultCode.RUN_TASK


def test_a_silent_and_a_closed_runner_are_not_assigned(harness: LedgerHarness) -> None:
    make_idle(harness)
    harness.advance(SETTINGS.runner_ttl + 1)
    make_idle(harness, "two").leave()
    harness.make_queued()

    assert harness.ledger.claim("job", warm_claim()).code is ResultCode.RUN_TASK


def test_an_end_that_is_confirmed_late_leaves_the_task_to_the_next_request(harness: LedgerHarness) -> None:
    make_idle(harness)
    harness.make_queued()
    harness.ledger.claim("job", warm_claim())

    harness.ledger.confirm([("first", "nonce-01")], "airflow")
    assert harness.ledger.find_id_by_arn(ARN) == "job"


def test_the_task_of_a_runner_that_has_come_is_the_record_s(harness: LedgerHarness) -> None:
    runner = start_launch(harness)
    runner.next()

    assert harness.ledger.launched("job", "nonce-01", 1, "arn:double", 1.0).code is ResultCode.OK
    assert harness.get_record().arn == ARN


def test_a_throttle_voids_the_run_and_takes_the_next_launch_number(harness: LedgerHarness) -> None:
    runner = start_launch(harness)

    assert harness.ledger.no_effect("job", "claim-job", 2.0, "throttled").code is ResultCode.OK
    record = harness.get_record()
    assert (record.state, record.launch, record.run) == (State.QUEUED, 2, "")
    assert runner.next() is NoTurn.LEAVE
    assert harness.ledger.launched("job", "nonce-01", 1, ARN, 1.0).code is ResultCode.UNWANTED


def test_a_throttled_launch_that_an_older_client_has_marked_to_stop_is_voided(harness: LedgerHarness) -> None:
    runner = start_launch(harness)
    mark_stop(harness, "job")

    assert harness.ledger.no_effect("job", "claim-job", 2.0, "throttled").code is ResultCode.ENDED
    assert (harness.get_state(), read_run(harness, runner.name)) == (State.REVOKED, None)


@pytest.mark.parametrize("operation", ["call_ambiguous", "no_effect", "refused"])
def test_a_late_report_of_a_launch_that_has_ended_leaves_the_next_request_to_its_runner(
    harness: LedgerHarness, operation: str
) -> None:
    runner = start_launch(harness)
    runner.next()
    runner.next(RunEnd(turn=1, exit_code=0))
    assert settle(harness).code is ResultCode.ENDED
    harness.make_queued("another")
    assert harness.ledger.claim("another", warm_claim("claim-another")).code is ResultCode.ASSIGNED

    arguments = make_refusal(RefusalKind.CAPACITY) if operation == "refused" else (2.0, "late")
    late = getattr(harness.ledger, operation)("job", "claim-job", *arguments)

    assert late.code is ResultCode.CLAIM_LOST
    answer = runner.next()
    assert isinstance(answer, Turn)
    assert answer.id == "another"


def test_a_launch_that_is_called_again_with_the_arguments_of_a_task_of_its_own_gets_no_run(
    harness: LedgerHarness,
) -> None:
    harness.make_queued()
    harness.ledger.claim("job", warm_claim("cold", pool="", args="a task of its own"))
    harness.ledger.no_effect("job", "cold", 0.0, "throttled")

    claimed = harness.ledger.claim("job", warm_claim("warm", args="a runner")).record
    assert claimed is not None
    assert (claimed.launch, claimed.args, claimed.run) == (1, "a task of its own", "")
    assert read_run(harness, OWN_RUN) is None


@pytest.mark.parametrize("operation", ["no_effect", "refused", "reclaim"])
def test_a_runner_that_has_come_proves_that_the_call_had_its_effect(harness: LedgerHarness, operation: str) -> None:
    start_launch(harness).next()

    if operation == "no_effect":
        assert harness.ledger.no_effect("job", "claim-job", 2.0, "throttled").code is ResultCode.OK
    elif operation == "refused":
        refusal = make_refusal(RefusalKind.PERMANENT)
        assert harness.ledger.refused("job", "claim-job", *refusal).code is ResultCode.OK
    else:
        harness.advance(SETTINGS.lease_seconds)
        assert harness.reclaim().code is ResultCode.NOT_CLAIMABLE
    record = harness.get_record()
    assert (record.state, record.arn, record.started_at) == (State.LAUNCHED, ARN, START)
    assert [due.id for due in harness.ledger.lease_due(10)] == ["job"]


@pytest.mark.parametrize(
    ("kind", "state"), [(RefusalKind.CAPACITY, State.QUEUED), (RefusalKind.PERMANENT, State.FAILED)]
)
def test_a_refusal_voids_the_run(harness: LedgerHarness, kind: RefusalKind, state: State) -> None:
    runner = start_launch(harness)

    harness.ledger.refused("job", "claim-job", *make_refusal(kind))
    assert harness.get_state() is state
    assert runner.next() is NoTurn.LEAVE


def test_an_ambiguous_call_is_repeated_and_after_40_minutes_voided_instead_of_listed(harness: LedgerHarness) -> None:
    runner = start_launch(harness)
    harness.ledger.call_ambiguous("job", "claim-job", 0.0, "time-out")
    assert harness.reclaim().code is ResultCode.RUN_TASK

    harness.advance(40 * MINUTE)
    assert harness.reclaim("claim-3").code is ResultCode.REQUEUED
    record = harness.get_record()
    assert (record.state, record.launch, record.attempt) == (State.QUEUED, 2, 1)
    assert runner.next() is NoTurn.LEAVE


def test_an_expired_ambiguous_launch_ends_at_once(harness: LedgerHarness) -> None:
    start_launch(harness, expires_at=START + 60)
    harness.advance(61)

    assert harness.reclaim().code is ResultCode.ENDED
    assert harness.get_state() is State.EXPIRED


def test_a_poison_request_that_starts_runners_is_not_launched_again(harness: LedgerHarness) -> None:
    start_launch(harness)
    for number in range(SETTINGS.max_deliveries - 1):
        harness.advance(SETTINGS.lease_seconds)
        assert harness.reclaim(f"again-{number}").code is ResultCode.RUN_TASK

    harness.advance(SETTINGS.lease_seconds)
    assert harness.reclaim("last").code is ResultCode.ENDED
    assert harness.get_state() is State.FAILED


def test_a_launch_that_ends_unknown_by_a_lower_max_deliveries_is_voided(harness: LedgerHarness) -> None:
    runner = start_launch(harness)
    set_fields(harness, "job", abandoned_claims=99)
    harness.advance(SETTINGS.lease_seconds)

    assert harness.reclaim().code is ResultCode.ENDED
    assert harness.get_state() is State.UNKNOWN
    assert runner.next() is NoTurn.LEAVE


def test_an_ambiguous_launch_that_an_older_client_has_marked_to_stop_is_not_queued_again(
    harness: LedgerHarness,
) -> None:
    runner = start_launch(harness)
    mark_stop(harness, "job")
    harness.advance(SETTINGS.lease_seconds)

    assert harness.reclaim().code is ResultCode.ENDED
    record = harness.get_record()
    assert (record.state, record.attempts) == (State.REVOKED, 0)
    assert runner.next() is NoTurn.LEAVE


def test_a_launch_whose_run_is_lost_ends_unknown(harness: LedgerHarness) -> None:
    runner = start_launch(harness)
    delete_run(harness, runner.name)
    harness.advance(40 * MINUTE)

    assert harness.reclaim().code is ResultCode.ENDED
    assert harness.get_state() is State.UNKNOWN


def test_a_stop_before_the_runner_has_come_ends_the_request_at_once(harness: LedgerHarness) -> None:
    runner = start_launch(harness)

    result = harness.stop()

    assert (result.code, harness.get_state()) == (ResultCode.ENDED, State.REVOKED)
    assert runner.next() is NoTurn.LEAVE
    assert harness.ledger.no_effect("job", "claim-job", 2.0, "throttled").code is ResultCode.CLAIM_LOST


def test_a_stop_before_a_warm_runner_took_the_command_closes_its_run(harness: LedgerHarness) -> None:
    runner = make_idle(harness)
    harness.make_queued()
    harness.ledger.claim("job", warm_claim())

    assert harness.stop().code is ResultCode.ENDED
    assert harness.get_record().attempts == 0
    assert runner.run.closed == "voided"
    assert runner.next() is NoTurn.LEAVE


def test_a_stop_of_a_running_command_cancels_it(harness: LedgerHarness) -> None:
    runner = start_runner(harness)

    assert harness.stop().code is ResultCode.STOP_REQUESTED
    assert harness.stop("job", "expiry").code is ResultCode.STALE, "it has started"
    assert runner.beat()
    assert harness.get_record().stop_requested_by == "ann"
    harness.advance(SETTINGS.stop_timeout + 10 - 0.1)
    assert harness.ledger.lease_due(10) == []
    harness.advance(0.1)
    assert [due.id for due in harness.ledger.lease_due(10)] == ["job"]


def test_a_stop_of_a_command_that_has_ended_leaves_its_end(harness: LedgerHarness) -> None:
    runner = start_runner(harness)
    runner.next(RunEnd(turn=1, exit_code=0))

    assert harness.stop().code is ResultCode.STOP_REQUESTED
    assert settle(harness).code is ResultCode.ENDED
    assert harness.get_state() is State.SUCCESS


def test_a_runner_of_a_launch_that_was_voided_finds_no_run(harness: LedgerHarness) -> None:
    start_launch(harness)
    harness.ledger.refused("job", "claim-job", *make_refusal(RefusalKind.CAPACITY))

    assert make_runner(harness, OWN_RUN).leave()
