"""Runs and the hints about them."""

from __future__ import annotations

import pytest

from ecs_queue.ledger import MemoryLedger
from ecs_queue.protocol.operations import ResultCode, RunnerTask
from ecs_queue.protocol.runs import NoTurn, Run, RunEnd, RunPhase, Turn
from ecs_queue.protocol.states import State
from tests.conformance.ledger.harness import PREFIX, SETTINGS, LedgerHarness
from tests.conformance.ledger.runner_harness import (
    ARN,
    delete_run,
    make_idle,
    mark_stop,
    settle,
    start_launch,
    start_runner,
    warm_claim,
)


def _close_silent(harness: LedgerHarness) -> list[Run]:
    """What all pages together show."""
    found: list[Run] = []
    offset = 0
    while offset >= 0:
        runs, offset = harness.ledger.close_silent(offset, 2)
        found += runs
    return found


def _drain(harness: LedgerHarness) -> int:
    return harness.ledger.drain_runs([run.name for run in harness.ledger.list_runs()])


def test_runs_are_read_without_their_payloads(harness: LedgerHarness) -> None:
    runner = start_runner(harness)

    found, absent = harness.ledger.read_runs([runner.name, "absent"])
    assert absent is None
    assert found is not None
    assert (found.id, found.boot, found.payload) == ("job", "boot-1", "")
    assert found.end is None
    assert harness.ledger.list_runs() == [found]


def test_an_end_is_read_as_it_was_reported(harness: LedgerHarness) -> None:
    runner = start_runner(harness)
    end = RunEnd(turn=1, exit_code=143, cancelled=True, mac="key:mac")
    runner.next(end)

    (found,) = harness.ledger.read_runs([runner.name])
    assert found is not None
    assert found.end == end


def test_a_changed_run_is_returned_once(harness: LedgerHarness) -> None:
    runners = [start_launch(harness, record_id) for record_id in ("a", "b")]
    assert harness.ledger.pop_changed_runs(0.0, 10) == []
    for runner in runners:
        runner.next()

    first, second = harness.ledger.pop_changed_runs(0.05, 1), harness.ledger.pop_changed_runs(0.05, 10)
    found = [*first, *second]
    assert [run.name for run in found] == [runner.name for runner in runners]
    assert len(first) == 1
    assert all(run.id and not run.payload for run in found)
    assert harness.ledger.pop_changed_runs(0.05, 10) == []


def test_only_a_task_that_serves_no_request_may_be_stopped(harness: LedgerHarness) -> None:
    busy, waiting = start_runner(harness), start_launch(harness, "waiting")
    idle = make_idle(harness)
    tasks = [busy.name, idle.name, waiting.name, "absent"]

    def may_stop(arn: str) -> list[bool]:
        return harness.ledger.may_stop([RunnerTask(name, arn) for name in tasks])

    assert may_stop(ARN) == [False, False, False, True]
    assert may_stop("arn:other") == [True, True, False, True]
    _drain(harness)
    assert may_stop(ARN) == [False, True, False, True]


def test_an_idle_runner_that_is_silent_for_long_is_closed_and_named_until_it_is_forgotten(
    harness: LedgerHarness,
) -> None:
    runner = make_idle(harness)
    harness.advance(SETTINGS.runner_lost_seconds - 1)
    busy = start_runner(harness)
    assert _close_silent(harness) == []

    harness.advance(1.0)
    for _ in range(2):
        (closed,) = _close_silent(harness)
        assert (closed.name, closed.arn, closed.target) == (runner.name, ARN, "here")
    assert runner.run.closed == "silent"
    harness.ledger.forget_runner(runner.name)
    harness.ledger.forget_runner(busy.name)
    assert _close_silent(harness) == []
    assert [run.name for run in harness.ledger.list_runs()] == [busy.name]


def test_a_silent_runner_that_was_closed_before_is_named_unless_it_has_left(harness: LedgerHarness) -> None:
    hung, left = start_runner(harness, "hung"), start_runner(harness, "left")
    for runner, record_id in ((hung, "hung"), (left, "left")):
        runner.next(RunEnd(turn=1, exit_code=0))
        settle(harness, record_id)
    assert _drain(harness) == 2
    assert left.next() is NoTurn.LEAVE

    harness.advance(SETTINGS.runner_lost_seconds - 1)
    assert _close_silent(harness) == []
    harness.advance(1.0)
    assert [run.name for run in _close_silent(harness)] == [hung.name]


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_run_whose_record_was_deleted_is_closed_when_its_runner_is_silent_for_long(
    harness: LedgerHarness, has_ended: bool
) -> None:
    runner, other = start_runner(harness), start_launch(harness, "other")
    runner.next(RunEnd(turn=1, exit_code=0) if has_ended else None)
    _delete_record(harness, "job")
    harness.advance(SETTINGS.runner_lost_seconds - 1)
    assert _close_silent(harness) == []
    assert runner.run.id == "job"

    harness.advance(1.0)
    assert [run.name for run in _close_silent(harness)] == [runner.name]
    assert runner.next(RunEnd(turn=1, exit_code=0)) is NoTurn.LEAVE
    assert isinstance(other.next(), Turn), "its record is there"


def test_a_runner_that_never_came_is_forgotten_with_its_record(harness: LedgerHarness) -> None:
    runner = start_launch(harness)
    _delete_record(harness, "job")
    harness.advance(SETTINGS.runner_lost_seconds)
    assert _close_silent(harness) == []
    assert harness.ledger.list_runs() == []
    assert runner.next() is NoTurn.LEAVE


def _delete_record(harness: LedgerHarness, record_id: str) -> None:
    if isinstance(harness.ledger, MemoryLedger):
        del harness.ledger._records[record_id]
    else:
        assert harness.client is not None
        assert harness.client.delete(f"{PREFIX}r:{record_id}")


def test_a_runner_that_a_claim_has_dropped_while_it_was_silent_is_assigned_once_it_calls_again(
    harness: LedgerHarness,
) -> None:
    runner = make_idle(harness)
    harness.advance(SETTINGS.runner_ttl + 1)
    for record_id in ("one", "two", "three"):
        harness.make_queued(record_id)
    assert harness.ledger.claim("one", warm_claim(may_call=False)).code is ResultCode.NO_RUNNER
    _close_silent(harness)
    assert runner.next() is NoTurn.WAIT
    assert harness.ledger.claim("two", warm_claim(may_call=False)).code is ResultCode.NO_RUNNER

    _close_silent(harness)
    assert harness.ledger.claim("two", warm_claim(may_call=False)).code is ResultCode.ASSIGNED
    assert harness.ledger.claim("three", warm_claim(may_call=False)).code is ResultCode.NO_RUNNER


def test_drained_runners_finish_their_commands_and_leave(harness: LedgerHarness) -> None:
    busy, other = start_runner(harness), start_launch(harness, "other")
    idle = make_idle(harness)

    assert harness.ledger.drain_runs(["absent"]) == 0
    assert _drain(harness) == 2
    assert _drain(harness) == 0
    harness.make_queued("next")
    assert harness.ledger.claim("next", warm_claim(may_call=False)).code is ResultCode.NO_RUNNER
    assert idle.next() is NoTurn.LEAVE
    assert busy.next(RunEnd(turn=1, exit_code=0)) is NoTurn.LEAVE
    assert not other.run.closed


def test_a_request_that_its_runner_has_not_taken_is_put_back_and_its_runner_leaves(harness: LedgerHarness) -> None:
    calling, starting = start_launch(harness, "calling"), start_launch(harness, "starting")
    harness.ledger.launched("starting", "nonce-01", 1, ARN, 1.0)
    warm = make_idle(harness)
    harness.make_queued("warm")
    assert harness.ledger.claim("warm", warm_claim()).code is ResultCode.ASSIGNED

    ids = ["calling", "starting", "warm", "first", "absent"]
    codes = [result.code.name for result in harness.ledger.put_back(ids)]
    assert codes == ["REQUEUED", "REQUEUED", "REQUEUED", "STALE", "NOT_FOUND"]
    for runner, record_id in ((calling, "calling"), (starting, "starting"), (warm, "warm")):
        record = harness.get_record(record_id)
        assert (record.state, record.launch, record.attempt, record.run) == (State.QUEUED, 2, 1, "")
        assert record.reason == "its pool was drained before its runner had taken it"
        assert runner.next() is NoTurn.LEAVE
        assert harness.ledger.claim(record_id, warm_claim(f"again-{record_id}")).code is ResultCode.RUN_TASK
    late = harness.ledger.launched("calling", "nonce-01", 1, "arn:late", 1.0)
    assert late.code is ResultCode.UNWANTED
    assert harness.ledger.may_stop([RunnerTask(calling.name, "arn:late")]) == [True]


def test_a_request_that_was_taken_or_is_to_be_stopped_is_not_put_back(harness: LedgerHarness) -> None:
    start_runner(harness, "taken")
    start_launch(harness, "marked")
    mark_stop(harness, "marked")
    harness.make_queued("queued")
    codes = {result.code for result in harness.ledger.put_back(["taken", "marked", "queued"])}
    assert codes == {ResultCode.STALE}
    assert harness.get_record("taken").state is State.LAUNCHED


def test_the_task_of_a_voided_run_is_known_until_its_runner_comes(harness: LedgerHarness) -> None:
    """A container whose entry point hangs never asks: the record that has started it is over, and knows it no more."""
    hung, slow = start_launch(harness, "hung"), start_launch(harness, "slow")
    for record_id in ("hung", "slow"):
        harness.ledger.launched(record_id, "nonce-01", 1, f"arn:{record_id}", 1.0)
        assert harness.ledger.stop([record_id], "ann")[0].code is ResultCode.ENDED
    assert hung.run.closed == "voided"
    assert harness.ledger.may_stop([RunnerTask(hung.name, "arn:hung")]) == [True]
    harness.advance(SETTINGS.runner_lost_seconds - 1)
    assert slow.next() is NoTurn.LEAVE
    assert _close_silent(harness) == []

    harness.advance(1.0)
    assert [(run.name, run.arn) for run in _close_silent(harness)] == [(hung.name, "arn:hung")]
    assert hung.next() is NoTurn.LEAVE
    assert _close_silent(harness) == []


def test_pages_cover_all_runners_and_drop_what_is_gone(harness: LedgerHarness) -> None:
    """Each page is one step of the server: it must not grow with the number of runners."""
    ids = [f"job-{number}" for number in range(7)]
    runners = [start_runner(harness, record_id) for record_id in ids]
    for runner, record_id in zip(runners, ids, strict=True):
        runner.next(RunEnd(turn=1, exit_code=0))
        settle(harness, record_id)
    delete_run(harness, runners[0].name)
    harness.advance(SETTINGS.runner_lost_seconds)
    first, offset = harness.ledger.close_silent(0, 3)
    assert len(first) <= 3
    found = [run.name for run in first]
    while offset >= 0:
        page, offset = harness.ledger.close_silent(offset, 3)
        found += [run.name for run in page]
    assert found == [runner.name for runner in runners[1:]]
    assert all(runner.run.phase is RunPhase.IDLE for runner in runners[1:])
