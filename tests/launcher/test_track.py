"""Following launched tasks to their end."""

from __future__ import annotations

import pytest

from ecs_queue.core.answers import StopAnswer, StopKind
from ecs_queue.core.states import State
from tests.launcher.lab import START, Lab

GRACE = 600.0


@pytest.fixture
def lab() -> Lab:
    return Lab()


def _launch_many(lab: Lab, number: int) -> None:
    for index in range(number):
        lab.launched(f"t{index}")


class TestEnds:
    @pytest.mark.parametrize(("exit_code", "state"), [(0, State.SUCCESS), (3, State.FAILED)])
    def test_the_exit_code_decides(self, lab: Lab, exit_code: int, state: State) -> None:
        arn = lab.launched()
        lab.ecs.end(arn, exit_code=exit_code)

        lab.later(1)

        record = lab.record()
        assert (record.state, record.exit_code, record.attempts) == (state, exit_code, 1)
        assert lab.published == [record]
        assert len(lab.worker.parts.in_flight) == 0

    def test_a_stopped_task_without_exit_codes_is_not_running(self, lab: Lab) -> None:
        lab.ecs.end(lab.launched(), exit_code=None)

        lab.later(1)

        assert lab.state() is State.FAILED

    def test_a_task_that_runs_is_noted_and_looked_at_again(self, lab: Lab) -> None:
        arn = lab.launched()
        lab.ecs.run(arn)

        lab.later(1)
        assert (lab.state(), lab.record().last_status) == (State.LAUNCHED, "RUNNING")
        lab.ecs.end(arn)
        lab.later(1.1)

        assert lab.state() is State.SUCCESS

    def test_a_look_that_shows_nothing_new_writes_nothing(self, lab: Lab) -> None:
        lab.launched()
        lab.later(1)
        before = lab.record()

        lab.later(1)

        assert lab.record() == before
        assert len(lab.ecs.described) == 2

    def test_an_end_is_told_once_though_two_workers_saw_it(self, lab: Lab) -> None:
        lab.ecs.end(lab.launched())
        lab.clock.advance(1)
        due = lab.memory.due(10)
        other = lab.new_worker()

        for tracker in (lab.worker.tracker, other.tracker):
            tracker._follow(due[0].target, due)

        assert lab.published == [lab.record()]


#: (relaunch policy, how it ended) -> whether it is started again
RELAUNCHES = [
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


def _end(lab: Lab, arn: str, how: str) -> None:
    if how == "start_failure":
        lab.ecs.fail_to_start(arn)
    elif how == "interrupted":
        lab.ecs.interrupt(arn)
    elif how == "stopped by hand":
        lab.ecs.end(arn, exit_code=143, stop_code="UserInitiated")
    else:
        lab.ecs.end(arn, exit_code=1 if how == "failed" else 0)


class TestRelaunches:
    @pytest.mark.parametrize(("policy", "how", "again"), RELAUNCHES)
    def test_only_what_the_policy_calls_safe_is_started_again(
        self, lab: Lab, policy: str, how: str, again: bool
    ) -> None:
        _end(lab, lab.launched(relaunch=policy), how)

        lab.later(1)

        record = lab.record()
        assert (record.state is State.QUEUED) is again
        assert (record.launch, record.attempt) == ((2, 2) if again else (1, 1))

    @pytest.mark.parametrize(("policy", "how"), [(policy, how) for policy, how, again in RELAUNCHES if again])
    def test_it_ends_when_the_attempts_are_used_up(self, lab: Lab, policy: str, how: str) -> None:
        lab.launched(relaunch=policy)

        for _ in range(200):
            for task in lab.ecs.alive():
                _end(lab, task["taskArn"], how)
            lab.later(1)

        record = lab.record()
        assert record.state is (State.REMOVED if how == "start_failure" else State.FAILED)
        assert (record.attempts, len(lab.ecs.tasks)) == (3, 3)
        assert lab.published == [record]

    def test_a_retry_waits_at_least_the_base_of_the_backoff(self, lab: Lab) -> None:
        lab.ecs.fail_to_start(lab.launched())
        lab.later(1)

        lab.later(1.9)
        assert lab.state() is State.QUEUED
        lab.pass_time(5)

        assert lab.state() is State.LAUNCHED


class TestStops:
    def test_a_running_task_is_stopped_and_revoked_with_its_real_exit_code(self, lab: Lab) -> None:
        arn = lab.launched()
        lab.ecs.run(arn)
        lab.later(1)

        lab.memory.stop(["a"], "alice")
        lab.pass_time(2)

        record = lab.record()
        assert (record.state, record.exit_code, record.reason) == (State.REVOKED, 143, "stopped by alice")
        assert [stopped for stopped, _ in lab.ecs.stopped] == [arn]

    def test_a_task_that_ended_before_the_stop_reached_it_keeps_its_own_end(self, lab: Lab) -> None:
        lab.ecs.end(lab.launched(), exit_code=0)
        lab.memory.stop(["a"], "alice")

        lab.later(1)

        assert lab.state() is State.SUCCESS
        assert not lab.ecs.stopped

    def test_a_task_over_its_time_limit_fails(self, lab: Lab) -> None:
        arn = lab.launched(time_limit=60.0)
        lab.ecs.run(arn)

        lab.pass_time(59)
        assert lab.state() is State.LAUNCHED
        lab.pass_time(8)

        assert lab.state() is State.FAILED
        assert "time limit of 60 s" in lab.record().reason

    def test_the_time_limit_does_not_count_the_wait_for_capacity(self, lab: Lab) -> None:
        lab.launched(time_limit=60.0)

        lab.pass_time(120, step=5)

        assert lab.state() is State.LAUNCHED

    def test_a_task_that_is_provisioning_at_its_deadline_expires(self, lab: Lab) -> None:
        lab.launched(expires_in=30.0)

        lab.pass_time(40)

        assert lab.state() is State.EXPIRED
        assert not lab.ecs.alive()

    def test_a_task_that_runs_at_its_deadline_goes_on(self, lab: Lab) -> None:
        arn = lab.launched(expires_in=30.0)
        lab.ecs.run(arn)

        lab.pass_time(60)

        assert lab.state() is State.LAUNCHED

    def test_a_stop_that_was_throttled_is_ordered_again(self, lab: Lab) -> None:
        lab.launched()
        lab.ecs.stop_answers.append(StopAnswer(StopKind.THROTTLED, reason="rate exceeded"))
        lab.memory.stop(["a"], "alice")

        lab.pass_time(10)

        assert lab.state() is State.REVOKED
        assert [fields["reason"] for fields in lab.worker.told("stop.trouble")] == ["rate exceeded"]


def test_young_tasks_are_looked_at_every_second_and_old_ones_every_ten(lab: Lab) -> None:
    lab.ecs.run(lab.launched())

    lab.pass_time(20, step=0.25)
    young = len(lab.ecs.described)
    lab.pass_time(1200, step=1)
    lab.ecs.described.clear()
    lab.pass_time(100, step=0.25)

    assert 15 <= young <= 20
    assert 9 <= len(lab.ecs.described) <= 10
    assert lab.clock() == START + 1320
