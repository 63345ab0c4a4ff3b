"""The ledger's clock goes back: nothing waits for it to come to where it was."""

from __future__ import annotations

import pytest

from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.settings import CANCEL_GRACE_SECONDS
from ecs_queue.protocol.states import State
from tests.conformance.ledger.harness import (
    ABSENCE_PROVABLE_AFTER,
    DAY,
    HOUR,
    MINUTE,
    SETTINGS,
    LedgerHarness,
    claim_request,
    make_worker,
)
from tests.conformance.ledger.runner_harness import make_idle, settle, start_runner, warm_claim
from tests.fake_clock import START

#: Larger than any wait, and smaller than the error of a clock that is corrected by a time zone.
STEPS = pytest.mark.parametrize("step", [2.0, MINUTE, HOUR, DAY])


def _read_indexes(harness: LedgerHarness) -> None:
    """Do what workers do all the time: so the ledger knows what its clock has shown."""
    harness.ledger.lease_due(10)
    harness.ledger.lease_unclaimed("default", 10)
    harness.ledger.lease_due_retries("default", 10)


@STEPS
def test_a_launched_task_is_polled_when_its_wait_is_over(harness: LedgerHarness, step: float) -> None:
    record = harness.make_launched()
    _read_indexes(harness)
    harness.ledger.reschedule_poll({record.id: 10.0})
    harness.advance(-step)
    assert harness.ledger.lease_due(10) == []
    harness.advance(10.0)
    assert [found.id for found in harness.ledger.lease_due(10)] == ["job"]
    assert harness.update_task(record).code is ResultCode.OK


@STEPS
def test_a_retry_is_launched_when_its_wait_is_over_and_not_earlier(harness: LedgerHarness, step: float) -> None:
    harness.make_launching()
    harness.ledger.no_effect("job", "claim-1", 30.0, "throttled")
    _read_indexes(harness)
    harness.advance(-step)
    assert harness.ledger.lease_due_retries("default", 10) == []
    harness.advance(29.0)
    assert harness.ledger.lease_due_retries("default", 10) == []
    harness.advance(1.0)
    assert [found.id for found in harness.ledger.lease_due_retries("default", 10)] == ["job"]
    assert harness.ledger.claim("job", claim_request("claim-2")).code is ResultCode.RUN_TASK


@STEPS
def test_a_request_whose_message_was_lost_is_found(harness: LedgerHarness, step: float) -> None:
    harness.make_queued()
    _read_indexes(harness)
    harness.advance(-step)
    harness.ledger.lease_unclaimed("default", 10)
    harness.advance(SETTINGS.sweep_after_seconds)
    assert [found.id for found in harness.ledger.lease_unclaimed("default", 10)] == ["job"]


@STEPS
def test_a_lease_ends_and_the_launch_is_resolved(harness: LedgerHarness, step: float) -> None:
    harness.make_launching()
    _read_indexes(harness)
    harness.advance(-step)
    assert harness.ledger.lease_due(10) == []
    harness.advance(SETTINGS.lease_seconds)
    assert [found.id for found in harness.ledger.lease_due(10)] == ["job"]
    assert harness.reclaim().code is ResultCode.RUN_TASK


@STEPS
def test_the_absence_of_a_task_is_proven_after_the_same_time(harness: LedgerHarness, step: float) -> None:
    harness.make_launching()
    harness.stop()
    _read_indexes(harness)
    harness.advance(-step)
    harness.ledger.lease_due(10)
    harness.advance(ABSENCE_PROVABLE_AFTER - 1)
    assert harness.reclaim("early").code is ResultCode.LIST_TASKS
    assert harness.ledger.task_absent("job", "early", 1.0).code is ResultCode.TOO_EARLY
    harness.advance(1.0)
    assert harness.reclaim("late").code is ResultCode.LIST_TASKS
    assert harness.ledger.task_absent("job", "late", 1.0).code is ResultCode.ENDED
    assert harness.get_state() is State.REVOKED


@STEPS
def test_a_launch_counts_as_old_as_it_is(harness: LedgerHarness, step: float) -> None:
    """40 minutes after its first call RunTask must not be called again: a clock that goes back makes it no younger."""
    harness.make_launching()
    harness.advance(35 * MINUTE)
    _read_indexes(harness)
    harness.advance(-step)
    harness.ledger.lease_due(10)
    harness.advance(5 * MINUTE)
    assert harness.reclaim().code is ResultCode.LIST_TASKS


def test_a_heartbeat_from_before_counts_no_more(harness: LedgerHarness) -> None:
    harness.ledger.heartbeat(make_worker("dead"), 15.0)
    harness.advance(-HOUR)
    harness.ledger.heartbeat(make_worker("alive"), 15.0)
    assert [worker.name for worker in harness.ledger.list_workers()] == ["alive"]


def test_a_clock_that_goes_on_changes_nothing(harness: LedgerHarness) -> None:
    record = harness.make_launched()
    for _ in range(5):
        _read_indexes(harness)
        harness.advance(0.5)
    harness.ledger.reschedule_poll({record.id: MINUTE})
    harness.advance(-0.5)  # within what counts as jitter
    _read_indexes(harness)
    harness.advance(MINUTE - 1)
    assert harness.ledger.lease_due(10) == []
    assert harness.get_record().launched_at == START


@STEPS
def test_the_time_limit_of_a_runners_command_is_kept(harness: LedgerHarness, step: float) -> None:
    runner = start_runner(harness, time_limit=90.0)
    harness.advance(-step)
    assert settle(harness).code is ResultCode.OK
    harness.advance(89.0)
    runner.beat()
    assert settle(harness).code is ResultCode.OK
    assert not runner.beat()
    harness.advance(1.0)
    assert settle(harness).code is ResultCode.OK
    assert runner.beat()


@STEPS
def test_a_runner_that_is_silent_is_asked_for_and_one_that_does_not_stop_is_stopped(
    harness: LedgerHarness, step: float
) -> None:
    start_runner(harness)
    harness.ledger.stop(["job"], "ann")
    harness.advance(-step)
    assert settle(harness).code is ResultCode.OK
    harness.advance(SETTINGS.runner_ttl)
    assert settle(harness).code is ResultCode.DESCRIBE_TASK
    harness.advance(SETTINGS.stop_timeout + CANCEL_GRACE_SECONDS - SETTINGS.runner_ttl)
    assert settle(harness).code is ResultCode.STOP_TASK


@STEPS
def test_a_command_that_an_idle_runner_does_not_take_is_put_back(harness: LedgerHarness, step: float) -> None:
    make_idle(harness)
    harness.make_queued("job")
    assert harness.ledger.claim("job", warm_claim()).code is ResultCode.ASSIGNED
    harness.advance(-step)
    assert settle(harness).code is ResultCode.OK
    harness.advance(SETTINGS.runner_ttl)
    assert settle(harness).code is ResultCode.REQUEUED
