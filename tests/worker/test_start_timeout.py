"""Tasks that do not start within the start timeout of their queue or request."""

from __future__ import annotations

from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.runs import NoTurn, RunEnd
from ecs_queue.protocol.states import State
from tests.worker.harness import WorkerHarness
from tests.worker.warm_harness import WARM, Runner, settle, start

TIMEOUT = {"AIRFLOW__AWS_ECS_EXECUTOR__START_TIMEOUT": "60"}


def test_a_task_that_stays_pending_is_stopped_and_the_next_attempt_starts() -> None:
    harness = WorkerHarness(TIMEOUT)
    first = harness.launch()

    harness.advance_in_steps(59)
    assert not harness.ecs.stop_calls
    harness.advance_in_steps(20)

    assert [arn for arn, _ in harness.ecs.stop_calls] == [first]
    record = harness.record()
    assert (record.state, record.launch, record.attempt) == (State.LAUNCHED, 2, 2)
    assert record.arn != first


def test_after_the_last_attempt_it_is_removed_with_the_reason() -> None:
    harness = WorkerHarness(TIMEOUT)
    harness.launch()

    harness.advance_in_steps(600)

    record = harness.record()
    assert (record.state, record.attempts) == (State.REMOVED, 3)
    assert record.reason == "It had not started within its start_timeout"
    assert not harness.ecs.live_tasks()


def test_a_task_that_starts_in_time_runs_as_long_as_it_likes() -> None:
    harness = WorkerHarness(TIMEOUT)
    arn = harness.launch()
    harness.advance_in_steps(55)
    harness.ecs.mark_running(arn)
    harness.advance_in_steps(600, step=5)

    assert harness.state() is State.LAUNCHED
    assert not harness.ecs.stop_calls


def test_a_stop_of_the_request_wins() -> None:
    harness = WorkerHarness(TIMEOUT)
    harness.launch()
    harness.clock.advance(60)
    harness.worker.poll()
    assert harness.ecs.stop_calls
    harness.memory_ledger.stop(["a"], "alice")
    harness.advance_in_steps(5)

    assert (harness.state(), harness.record().reason) == (State.REVOKED, "stopped by alice")


def test_a_request_may_have_a_start_timeout_of_its_own() -> None:
    harness = WorkerHarness(TIMEOUT)
    harness.launch(start_timeout=10.0)
    harness.advance_in_steps(12)
    assert harness.record().attempt == 2


def test_a_request_may_not_where_the_queue_does_not_allow_it() -> None:
    harness = WorkerHarness(TIMEOUT | {"AIRFLOW__AWS_ECS_EXECUTOR__ALLOWED_OVERRIDES": "cpu, memory"})
    assert harness.worker.handle_message(harness.new_envelope(start_timeout=10.0))
    record = harness.record()
    assert record.state is State.FAILED
    assert "start_timeout may not be overridden in the queue 'default'" in record.reason


def test_another_version_leaves_the_task_to_workers_that_know_start_timeouts() -> None:
    harness = WorkerHarness(TIMEOUT)
    harness.launch()
    assert harness.record().spec_version == 3
    harness = WorkerHarness()
    harness.launch()
    assert harness.record().spec_version == 1


class TestWarmPool:
    """It counts for the first turn of a runner only."""

    def test_a_runner_that_does_not_start_is_stopped_and_the_next_attempt_starts_another(self) -> None:
        harness = WorkerHarness(WARM | TIMEOUT)
        first = harness.launch()
        late_runner = Runner(harness, first)
        harness.advance_in_steps(75)

        assert [arn for arn, _ in harness.ecs.stop_calls] == [first]
        record = harness.record()
        assert (record.state, record.launch, record.attempt) == (State.LAUNCHED, 2, 2)
        assert late_runner.next() is NoTurn.LEAVE

    def test_after_the_last_attempt_it_is_removed(self) -> None:
        harness = WorkerHarness(WARM | TIMEOUT | {"AIRFLOW__AWS_ECS_EXECUTOR__MAX_RUN_TASK_ATTEMPTS": "1"})
        harness.launch()
        harness.advance_in_steps(75)
        assert harness.state() is State.REMOVED
        assert "start_timeout of 60 s" in harness.record().reason
        assert harness.ecs.stop_calls

    def test_a_runner_that_has_spoken_has_started_whatever_ecs_shows(self) -> None:
        harness = WorkerHarness(WARM | TIMEOUT)
        start(harness)
        harness.advance_in_steps(75)
        assert harness.state() is State.LAUNCHED
        assert not harness.ecs.stop_calls

    def test_the_second_request_of_a_runner_has_none(self) -> None:
        harness = WorkerHarness(WARM | TIMEOUT)
        runner = start(harness)
        runner.next(RunEnd(turn=1, exit_code=0))
        settle(harness)
        harness.launch("b")
        record = harness.record("b")
        assert (record.run, record.start_timeout) == (runner.options.run, 0.0)
        assert harness.worker.emitted("decision.next_action")[-1]["code"] == ResultCode.ASSIGNED.value
