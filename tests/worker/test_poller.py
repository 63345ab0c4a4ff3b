"""Following launched tasks to their end."""

from __future__ import annotations

import pytest

from ecs_queue.protocol.ecs_results import EcsError, EcsErrorKind, StopTaskResult
from ecs_queue.protocol.states import State
from ecs_queue.worker.poller import collect_tasks
from tests.fake_clock import START
from tests.worker.harness import WorkerHarness

GRACE = 600.0


@pytest.fixture
def harness() -> WorkerHarness:
    return WorkerHarness()


class TestEnds:
    @pytest.mark.parametrize(("exit_code", "state"), [(0, State.SUCCESS), (3, State.FAILED)])
    def test_the_exit_code_decides(self, harness: WorkerHarness, exit_code: int, state: State) -> None:
        arn = harness.launch()
        harness.ecs.finish(arn, exit_code=exit_code)

        harness.advance(1)

        record = harness.record()
        assert (record.state, record.exit_code, record.attempts) == (state, exit_code, 1)
        assert harness.published_results == [record]

    def test_a_stopped_task_without_exit_codes_is_not_running(self, harness: WorkerHarness) -> None:
        harness.ecs.finish(harness.launch(), exit_code=None)

        harness.advance(1)

        assert harness.state() is State.FAILED

    def test_a_task_that_runs_is_noted_and_polled_again(self, harness: WorkerHarness) -> None:
        arn = harness.launch()
        harness.ecs.mark_running(arn)

        harness.advance(1)
        assert (harness.state(), harness.record().last_status) == (State.LAUNCHED, "RUNNING")
        harness.ecs.finish(arn)
        harness.advance(1.1)

        assert harness.state() is State.SUCCESS

    def test_a_poll_that_shows_nothing_new_writes_nothing(self, harness: WorkerHarness) -> None:
        harness.launch()
        harness.advance(1)
        before = harness.record()

        harness.advance(1)

        assert harness.record() == before
        assert len(harness.ecs.describe_calls) == 2

    def test_an_end_is_published_once_though_two_workers_saw_it(self, harness: WorkerHarness) -> None:
        harness.ecs.finish(harness.launch())
        harness.clock.advance(5)
        due = harness.memory_ledger.lease_due(10)
        other = harness.new_worker()

        for poller in (harness.worker.poller, other.poller):
            poller._poll_target(due[0].target, due)

        assert harness.published_results == [harness.record()]


#: (relaunch policy, how it ended) -> whether it is started again
RELAUNCH_CASES = [
    ("never_started", "start_failure", True),
    ("never_started", "interrupted", False),
    ("never_started", "failed", False),
    ("interrupted", "start_failure", True),
    ("interrupted", "interrupted", True),
    ("interrupted", "failed", False),
    ("any_failure", "start_failure", True),
    ("any_failure", "interrupted", True),
    ("any_failure", "failed", True),
    ("any_failure", "succeeded", False),
    ("any_failure", "stopped by hand", False),
]


def _finish_task(harness: WorkerHarness, arn: str, how: str) -> None:
    if how == "start_failure":
        harness.ecs.fail_to_start(arn)
    elif how == "interrupted":
        harness.ecs.interrupt(arn)
    elif how == "stopped by hand":
        harness.ecs.finish(arn, exit_code=143, stop_code="UserInitiated")
    else:
        harness.ecs.finish(arn, exit_code=1 if how == "failed" else 0)


class TestRelaunches:
    @pytest.mark.parametrize(("policy", "how", "again"), RELAUNCH_CASES)
    def test_only_what_the_policy_calls_safe_is_started_again(
        self, harness: WorkerHarness, policy: str, how: str, again: bool
    ) -> None:
        _finish_task(harness, harness.launch(relaunch=policy), how)

        harness.advance(1)

        record = harness.record()
        assert (record.state is State.QUEUED) is again
        assert (record.launch, record.attempt) == ((2, 2) if again else (1, 1))

    @pytest.mark.parametrize(("policy", "how"), [(policy, how) for policy, how, again in RELAUNCH_CASES if again])
    def test_it_ends_when_the_attempts_are_used_up(self, harness: WorkerHarness, policy: str, how: str) -> None:
        harness.launch(relaunch=policy)

        for _ in range(200):
            for task in harness.ecs.live_tasks():
                _finish_task(harness, task["taskArn"], how)
            harness.advance(1)

        record = harness.record()
        assert record.state is (State.REMOVED if how == "start_failure" else State.FAILED)
        assert (record.attempts, len(harness.ecs.tasks)) == (3, 3)
        assert harness.published_results == [record]

    def test_a_retry_waits_at_least_the_base_of_the_backoff(self, harness: WorkerHarness) -> None:
        harness.ecs.fail_to_start(harness.launch())
        harness.advance(1)

        harness.advance(1.9)
        assert harness.state() is State.QUEUED
        harness.advance_in_steps(5)

        assert harness.state() is State.LAUNCHED


class TestStops:
    def test_a_running_task_is_stopped_and_revoked_with_its_real_exit_code(self, harness: WorkerHarness) -> None:
        arn = harness.launch()
        harness.ecs.mark_running(arn)
        harness.advance(1)

        harness.memory_ledger.stop(["a"], "alice")
        harness.advance_in_steps(2)

        record = harness.record()
        assert (record.state, record.exit_code, record.reason) == (State.REVOKED, 143, "stopped by alice")
        assert [stopped for stopped, _ in harness.ecs.stop_calls] == [arn]

    def test_a_task_that_ended_before_the_stop_reached_it_keeps_its_own_end(self, harness: WorkerHarness) -> None:
        harness.ecs.finish(harness.launch(), exit_code=0)
        harness.memory_ledger.stop(["a"], "alice")

        harness.advance(1)

        assert harness.state() is State.SUCCESS
        assert not harness.ecs.stop_calls

    def test_a_task_over_its_time_limit_fails(self, harness: WorkerHarness) -> None:
        arn = harness.launch(time_limit=60.0)
        harness.ecs.mark_running(arn)

        harness.advance_in_steps(59)
        assert harness.state() is State.LAUNCHED
        harness.advance_in_steps(8)

        assert harness.state() is State.FAILED
        assert "time limit of 60 s" in harness.record().reason

    def test_the_time_limit_does_not_count_the_wait_for_capacity(self, harness: WorkerHarness) -> None:
        harness.launch(time_limit=60.0)

        harness.advance_in_steps(120, step=5)

        assert harness.state() is State.LAUNCHED

    def test_a_task_that_is_provisioning_at_its_deadline_expires(self, harness: WorkerHarness) -> None:
        harness.launch(expires_in=30.0)

        harness.advance_in_steps(40)

        assert harness.state() is State.EXPIRED
        assert not harness.ecs.live_tasks()

    def test_a_task_that_runs_at_its_deadline_goes_on(self, harness: WorkerHarness) -> None:
        arn = harness.launch(expires_in=30.0)
        harness.ecs.mark_running(arn)

        harness.advance_in_steps(60)

        assert harness.state() is State.LAUNCHED

    def test_a_stop_that_was_throttled_is_ordered_again(self, harness: WorkerHarness) -> None:
        harness.launch()
        harness.ecs.stop_task_results.append(StopTaskResult(error=EcsError(EcsErrorKind.THROTTLED, "rate exceeded")))
        harness.memory_ledger.stop(["a"], "alice")

        harness.advance_in_steps(10)

        assert harness.state() is State.REVOKED
        assert [fields["reason"] for fields in harness.worker.emitted("stop_task.failed")] == ["rate exceeded"]


def test_young_tasks_are_polled_every_second_and_old_ones_every_ten(harness: WorkerHarness) -> None:
    harness.ecs.mark_running(harness.launch())

    harness.advance_in_steps(20, step=0.25)
    young = len(harness.ecs.describe_calls)
    harness.advance_in_steps(1200, step=1)
    harness.ecs.describe_calls.clear()
    harness.advance_in_steps(100, step=0.25)

    assert 15 <= young <= 20
    assert 9 <= len(harness.ecs.describe_calls) <= 10
    assert harness.clock() == START + 1320


def test_the_batch_of_a_poll_knows_each_task_by_arn_and_request_and_no_command(harness: WorkerHarness) -> None:
    harness.launch_many(2)
    records = [harness.record("t0"), harness.record("t1")]

    batch = collect_tasks(records)

    assert batch.get_all_arns() == [record.arn for record in records]
    assert [batch.arn_to_key[record.arn] for record in records] == ["t0", "t1"]
    assert (batch.info_by_key("t0").queue, batch.info_by_key("t0").cmd) == ("default", [])
    assert batch.failure_count_by_key("t0") == records[0].attempt
