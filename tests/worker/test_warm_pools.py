"""Requests of a warm queue: launchers and a runner over the in-memory ledger."""

from __future__ import annotations

import pytest

from ecs_queue.protocol.ecs_results import RunTaskResultKind
from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.runs import RunEnd, Turn
from ecs_queue.protocol.states import State
from ecs_queue.worker.silent_runners import SilentRunners
from tests.worker.harness import WorkerHarness, failed_result, make_config
from tests.worker.warm_harness import WARM, Runner, settle, start

SIGNING = {"AIRFLOW__ECS_QUEUE__SIGNING_KEYS": "one:0123456789abcdef0123456789abcdef"}


@pytest.fixture(params=["without keys", "with keys"])
def harness(request: pytest.FixtureRequest) -> WorkerHarness:
    """A warm queue."""
    return WorkerHarness(WARM | (SIGNING if request.param == "with keys" else {}))


def test_a_launch_starts_a_runner_that_takes_the_command_from_the_ledger(harness: WorkerHarness) -> None:
    harness.launch(command=["echo", "secret"])

    assert "secret" not in str(harness.ecs.run_task_calls[-1].arguments)
    runner = Runner(harness)
    turn = runner.next()
    assert isinstance(turn, Turn)
    assert runner.command(turn) == ["echo", "secret"]
    assert (runner.options.warm_seconds, runner.options.run) == (60.0, harness.record().run)


def test_the_reported_end_ends_the_request_and_the_next_one_needs_no_call(harness: WorkerHarness) -> None:
    runner = start(harness)
    runner.next(RunEnd(turn=1, exit_code=0))
    settle(harness)
    assert [(record.id, record.state) for record in harness.published_results] == [("a", State.SUCCESS)]

    harness.launch("b", command=["another"])
    turn = runner.next(RunEnd(turn=1, exit_code=0))
    assert isinstance(turn, Turn)
    assert (turn.id, runner.command(turn)) == ("b", ["another"])
    assert len(harness.ecs.run_task_calls) == 1
    assert [event["id"] for event in harness.worker.emitted("launch.assigned")] == ["b"]


def test_a_request_of_another_shape_gets_a_runner_of_its_own(harness: WorkerHarness) -> None:
    runner = start(harness)
    runner.next(RunEnd(turn=1, exit_code=0))
    settle(harness)

    harness.launch("b", executor_config={"cpu": 512})
    assert len(harness.ecs.run_task_calls) == 2


def test_a_runner_that_was_started_before_the_keys_were_replaced_gets_no_command_of_the_new_one() -> None:
    harness = WorkerHarness(WARM | SIGNING)
    runner = start(harness)
    runner.next(RunEnd(turn=1, exit_code=0))
    settle(harness)

    replaced = {name: f"two:{'2' * 32},{key}" for name, key in SIGNING.items()}
    harness.worker = harness.new_worker(WARM | replaced)
    harness.launch("b")
    assert len(harness.ecs.run_task_calls) == 2


def test_an_end_that_is_not_signed_by_the_queue_does_not_count() -> None:
    harness = WorkerHarness(WARM | SIGNING)
    runner = start(harness)
    runner.next(RunEnd(turn=1, exit_code=0), signed=False)
    settle(harness)

    assert harness.state() is State.LAUNCHED
    assert harness.worker.emitted("runner.end_rejected")
    runner.next(RunEnd(turn=1, exit_code=1))
    settle(harness)
    assert harness.state() is State.FAILED


def test_a_lost_hint_is_made_good_when_the_record_is_due(harness: WorkerHarness) -> None:
    runner = start(harness)
    runner.next(RunEnd(turn=1, exit_code=0))
    harness.ledger.pop_changed_runs(0.0, 10)

    harness.advance(harness.config.runner_ttl)
    assert harness.state() is State.SUCCESS


def test_a_runner_whose_task_has_stopped_while_its_command_ran_fails_the_request(harness: WorkerHarness) -> None:
    runner = start(harness)
    harness.ecs.finish(runner.arn, exit_code=0)

    harness.advance_in_steps(harness.config.runner_ttl + 5)
    assert harness.state() is State.FAILED
    assert "the runner stopped before it reported" in harness.record().reason


def test_the_task_of_a_runner_that_does_not_take_its_next_command_is_stopped(harness: WorkerHarness) -> None:
    runner = start(harness)
    runner.next(RunEnd(turn=1, exit_code=0))
    settle(harness)
    harness.launch("b")
    assert harness.record("b").arn == runner.arn

    harness.advance_in_steps(harness.config.runner_ttl + 2)
    assert [arn for arn, _ in harness.ecs.stop_calls] == [runner.arn]
    assert (harness.record("b").launch, harness.record("b").attempt) == (2, 1)


def test_the_task_of_a_command_that_expired_before_its_runner_had_started_is_stopped(harness: WorkerHarness) -> None:
    harness.launch("a", expires_at=harness.clock() + 30)
    (arn,) = harness.ecs.tasks
    harness.advance_in_steps(45)
    assert harness.state() is State.EXPIRED
    assert [stopped for stopped, _ in harness.ecs.stop_calls] == [arn]


@pytest.mark.parametrize("how", ["stopped", "put back"])
def test_the_task_of_a_container_that_hangs_before_its_runner_has_come_is_stopped(
    harness: WorkerHarness, how: str
) -> None:
    """A client takes its command away: no worker orders a stop at once, and its record knows the task no more."""
    harness.launch("a")
    (arn,) = harness.ecs.tasks
    harness.ecs.mark_running(arn)
    harness.ledger.pause_queues(["default"])
    if how == "stopped":
        harness.ledger.stop(["a"], "ann")
    else:
        assert harness.ledger.put_back(["a"])[0].code is ResultCode.REQUEUED
    silent = SilentRunners(harness.worker.context)
    harness.clock.advance(harness.config.runner_lost_seconds - 1)
    silent.step()
    assert harness.ecs.stop_calls == []

    harness.clock.advance(60.0)
    silent.step()
    assert [stopped for stopped, _ in harness.ecs.stop_calls] == [arn]


def test_all_workers_together_look_at_the_runners_twice_a_minute_at_most(harness: WorkerHarness) -> None:
    rounds: list[str] = []
    harness.ledger.on_call = lambda operation, when: rounds.append(operation) if when == "before" else None
    workers = [SilentRunners(harness.new_worker(WARM).context) for _ in range(5)]
    for _ in range(10):
        for each in workers:
            each.step()
        harness.clock.advance(12.0)
    assert 4 <= rounds.count("close_silent") <= 5


def test_a_task_that_runs_is_neither_stopped_nor_ended_by_what_it_shows(harness: WorkerHarness) -> None:
    runner = start(harness, time_limit=100.0)
    harness.ecs.mark_running(runner.arn)
    harness.advance_in_steps(90, step=5)  # the runner is silent
    assert harness.state() is State.LAUNCHED
    assert harness.ecs.stop_calls == []


def test_a_command_that_does_not_end_in_time_has_its_runner_stopped(harness: WorkerHarness) -> None:
    runner = start(harness)
    harness.ledger.stop(["a"], "ann")
    harness.advance_in_steps(harness.config.stop_timeout + 9)
    assert harness.ecs.stop_calls == []

    harness.advance_in_steps(5)
    assert [arn for arn, _ in harness.ecs.stop_calls] == [runner.arn]
    harness.advance_in_steps(35)
    assert harness.state() is State.REVOKED


def test_a_stopped_command_goes_on_to_its_end_where_no_worker_can_read_its_target() -> None:
    """ECS shows nothing, so nothing proves that the runner is dead."""
    harness = WorkerHarness(WARM)
    runner = start(harness)
    harness.memory_ledger._records["a"].target = "of another version"
    harness.ledger.stop(["a"], "ann")
    harness.advance_in_steps(600, step=5)  # the runner does not see the server
    assert harness.state() is State.LAUNCHED

    runner.next(RunEnd(turn=1, exit_code=143, cancelled=True))
    settle(harness)
    assert harness.state() is State.REVOKED


def test_a_stopped_request_whose_run_is_lost_ends_unknown_where_no_worker_can_read_its_target() -> None:
    harness = WorkerHarness(WARM)
    start(harness)
    harness.memory_ledger._records["a"].target = "of another version"
    harness.memory_ledger._runs.clear()
    harness.ledger.stop(["a"], "ann")
    harness.advance_in_steps(30, step=5)
    assert harness.state() is State.UNKNOWN


def test_a_launch_that_nobody_wants_any_more_is_not_stopped_while_its_runner_serves_requests(
    harness: WorkerHarness,
) -> None:
    runner = start(harness)
    record = harness.record()
    runner.next(RunEnd(turn=1, exit_code=0))
    settle(harness)

    harness.worker.launcher.calls.record_launched(record, harness.worker.target_for("default"), runner.arn)
    assert harness.ledger.launched("a", record.nonce, 1, runner.arn, 1.0).code is ResultCode.UNCHANGED
    assert harness.ecs.stop_calls == []


def test_a_waiting_request_takes_a_runner_that_becomes_idle_in_place_of_a_token() -> None:
    limited = WorkerHarness(WARM, run_task_rate=0.001, run_task_burst=2)
    runner = start(limited)
    for record_id in ("c", "b"):  # the first one takes the only token
        limited.put_request(record_id)
        limited.clock.advance(limited.config.sweep_after_seconds)
        limited.worker.sweep()
    assert (limited.state("c"), limited.state("b")) == (State.LAUNCHED, State.QUEUED)

    runner.next(RunEnd(turn=1, exit_code=0))
    settle(limited)
    assert limited.state("b") is State.LAUNCHED
    assert limited.record("b").arn == runner.arn
    assert len(limited.ecs.run_task_calls) == 2


def test_a_throttled_launch_is_made_again_under_the_next_number(harness: WorkerHarness) -> None:
    harness.ecs.run_task_results.append(failed_result(RunTaskResultKind.THROTTLED))
    harness.worker.handle_message(harness.new_envelope())
    assert (harness.state(), harness.record().launch) == (State.QUEUED, 2)

    harness.advance_in_steps(60)
    assert (harness.state(), harness.record().launch) == (State.LAUNCHED, 2)


def test_without_a_warm_queue_nothing_of_a_launch_changes() -> None:
    harness = WorkerHarness()
    calls: list[str] = []
    harness.ledger.on_call = lambda operation, when: calls.append(operation) if when == "before" else None
    harness.launch(command=["true"])
    harness.worker.poll()

    assert calls == ["put_and_claim", "launched", "lease_due"]
    assert harness.ecs.run_task_calls[-1].arguments["overrides"]["containerOverrides"] == [
        {"name": "main", "command": ["true"]}
    ]
    assert harness.record().spec_version == 1
    assert make_config().profile("default").warm_seconds == 0.0
