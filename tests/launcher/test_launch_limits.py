"""Conflicts, stops, deadlines and quotas around a launch."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, ClassVar

import pytest

from ecs_queue.core.answers import Kind, RunAnswer
from ecs_queue.core.record import startedby_of
from ecs_queue.core.states import State
from ecs_queue.ecs.clients import Target
from ecs_queue.launcher.lanes import Job, JobKind
from ecs_queue.telemetry import EVENTS
from tests.launcher.lab import TARGET, Lab, Message


@pytest.fixture
def lab() -> Lab:
    return Lab()


def _no(kind: Kind, **fields: Any) -> RunAnswer:
    return RunAnswer(kind, reason=f"ECS said {kind.value}", **fields)


class TestConflicts:
    OURS = "arn:aws:ecs:us-east-1:123456789012:task/jobs/ours"

    def _conflict(self, lab: Lab, *arns: str) -> None:
        lab.ecs.answers.append(_no(Kind.CONFLICT, conflicting=arns))
        lab.worker.take(lab.body())

    def test_a_task_that_is_ours_is_adopted(self, lab: Lab) -> None:
        body = lab.put()
        lab.ecs.add_task(self.OURS, startedby_of("ecs-queue", "a", lab.record().nonce, 1))
        lab.ecs.answers.append(_no(Kind.CONFLICT, conflicting=(self.OURS,)))

        lab.worker.take(body)

        assert (lab.state(), lab.record().arn) == (State.LAUNCHED, self.OURS)

    def test_a_task_of_somebody_else_is_a_permanent_error(self, lab: Lab) -> None:
        lab.ecs.add_task(self.OURS, "somebody/else")

        self._conflict(lab, self.OURS)

        assert lab.state() is State.FAILED

    @pytest.mark.parametrize("arns", [(), (OURS,)], ids=["none named", "not shown"])
    def test_a_task_that_nobody_can_see_leaves_it_in_doubt(self, lab: Lab, arns: tuple[str, ...]) -> None:
        self._conflict(lab, *arns)

        assert lab.state() is State.LAUNCHING

    def test_one_of_several_that_is_not_shown_may_be_ours(self, lab: Lab) -> None:
        lab.ecs.add_task(self.OURS, "somebody/else")

        self._conflict(lab, self.OURS, self.OURS + "2")

        assert lab.state() is State.LAUNCHING


class TestStops:
    def test_a_stop_before_the_launch_ends_it_without_a_call(self, lab: Lab) -> None:
        body = lab.put()
        lab.memory.stop(["a"], "alice")

        assert lab.worker.take(body)

        assert lab.state() is State.REVOKED
        assert not lab.ecs.calls

    def test_a_stop_that_came_before_the_request_is_told_when_it_arrives(self, lab: Lab) -> None:
        lab.memory.stop(["a"], "alice")

        assert lab.worker.take(lab.body())

        assert [record.state for record in lab.published] == [State.REVOKED]
        assert not lab.ecs.calls

    def test_a_stop_during_the_call_stops_what_it_started(self, lab: Lab) -> None:
        lab.ecs.on_run = lambda call: lab.memory.stop(["a"], "alice")
        lab.worker.take(lab.body())
        assert lab.state() is State.LAUNCHED

        lab.pass_time(3)

        assert lab.state() is State.REVOKED
        assert [arn for arn, _ in lab.ecs.stopped] == [lab.record().arn]
        assert not lab.ecs.alive()

    def test_a_stop_during_a_call_that_ecs_refuses_is_revoked(self, lab: Lab) -> None:
        lab.ecs.on_run = lambda call: lab.memory.stop(["a"], "alice")
        lab.ecs.answers.append(_no(Kind.CAPACITY))

        lab.worker.take(lab.body())

        assert lab.state() is State.REVOKED
        assert lab.published == [lab.record()]


class TestExpiry:
    def test_an_expired_request_is_not_launched(self, lab: Lab) -> None:
        body = lab.put(expires_in=10.0)
        lab.clock.advance(11)

        assert lab.worker.take(body)

        assert lab.state() is State.EXPIRED
        assert lab.published == [lab.record()]
        assert not lab.ecs.calls

    def test_the_startup_allowance_counts(self) -> None:
        lab = Lab(startup_allowance=30)

        lab.worker.take(lab.body(expires_in=20.0))

        assert lab.state() is State.EXPIRED


class TestQuota:
    def test_a_message_without_a_launch_gives_its_token_back(self) -> None:
        lab = Lab(run_task_rate=1, run_task_burst=2)
        body = lab.put("a")
        lab.memory.stop(["a"], "alice")
        assert not lab.worker.parts.run_quota.take(TARGET)
        assert lab.worker.parts.run_quota.take(TARGET)

        lab.worker.take(body)

        assert not lab.worker.parts.run_quota.take(TARGET)

    def test_a_throttle_slows_all_workers_down_and_costs_no_attempt(self) -> None:
        lab = Lab(run_task_rate=8, run_task_burst=20)
        other = lab.new_worker()
        lab.ecs.answers.append(_no(Kind.THROTTLED))

        lab.worker.take(lab.body())

        record = lab.record()
        assert (record.state, record.attempt, record.launch) == (State.QUEUED, 1, 1)
        assert lab.worker.told("quota.lowered") == [{"calls": "run_task", "rate": 6.0}]
        assert other.parts.run_quota.take(TARGET) == pytest.approx(2 / 6, abs=0.01)  # one, beside the one for StopTask

    def test_launches_of_another_account_do_not_wait(self) -> None:
        lab = Lab(run_task_rate=1, run_task_burst=2)
        there = Target("eu-west-1", None, None, "jobs")
        lab.worker.target_for = lambda queue: there if queue == "there" else TARGET
        for index in range(3):
            for queue in ("default", "there"):
                delivery = Message(lab.body(f"{queue}{index}", queue=queue), queue)
                take: Any = partial(lab.worker.launcher.take, delivery)
                permit = lab.worker.parts.permit_for(queue)
                lab.worker.slots.submit(Job(take, JobKind.MESSAGE, queue, permit=permit))

        assert sorted(call.target.region for call in lab.ecs.calls) == ["eu-west-1", "us-east-1"]


class TestQueueLimits:
    ONE: ClassVar = {"AIRFLOW__AWS_ECS_EXECUTOR_GPU__MAX_IN_FLIGHT": "1"}

    def test_a_full_queue_lets_the_rest_wait_and_others_go_on(self) -> None:
        lab = Lab(self.ONE)
        lab.queues = ("default", "gpu")
        worker = lab.new_worker(self.ONE)
        for name in ("a", "b"):
            assert worker.launcher.take(Message(lab.body(name, queue="gpu"), "gpu"))
        assert worker.launcher.take(Message(lab.body("other")))

        assert [lab.state(name) for name in ("a", "b", "other")] == [State.LAUNCHED, State.QUEUED, State.LAUNCHED]
        assert worker.gates.room("gpu") == 0
        assert worker.gates.room("default") > 0

    def test_a_full_queue_is_asked_for_nothing_until_there_is_room(self) -> None:
        lab = Lab(self.ONE)
        lab.queues = ("default", "gpu")
        worker = lab.new_worker(self.ONE)
        worker.launcher.take(Message(lab.body("a", queue="gpu"), "gpu"))
        for index in range(20):
            lab.put(f"b{index}", queue="gpu")
        claims: list[str] = []
        lab.ledger.on_call = lambda operation, when: claims.append(operation) if operation == "claim" else None

        for _ in range(50):
            lab.clock.advance(1)
            worker.sweep()
        assert claims == []
        lab.ecs.end(lab.record("a").arn)
        worker.track()
        worker.sweep()

        launched = [index for index in range(20) if lab.state(f"b{index}") is State.LAUNCHED]
        assert len(launched) == 1


class TestPause:
    def test_requests_of_a_paused_queue_wait_and_expire(self, lab: Lab) -> None:
        lab.memory.pause(["default"])
        assert lab.worker.take(lab.body("a"))
        assert lab.worker.take(lab.body("b", expires_in=30.0))

        lab.pass_time(60)
        assert (lab.state("a"), lab.state("b")) == (State.QUEUED, State.EXPIRED)
        assert not lab.ecs.calls
        lab.memory.resume(["default"])
        lab.pass_time(35)

        assert lab.state("a") is State.LAUNCHED

    def test_tasks_in_flight_are_followed_on(self, lab: Lab) -> None:
        arn = lab.launched()
        lab.memory.pause(["default"])
        lab.ecs.end(arn)

        lab.pass_time(5)

        assert lab.state() is State.SUCCESS


def test_max_in_flight_lets_the_rest_wait_until_there_is_room() -> None:
    lab = Lab(max_in_flight=1)
    arn = lab.launched("a")
    assert lab.worker.take(lab.body("b"))
    assert lab.state("b") is State.QUEUED

    lab.ecs.end(arn)
    lab.pass_time(5)

    assert (lab.state("a"), lab.state("b")) == (State.SUCCESS, State.LAUNCHED)


def test_no_event_tells_the_command_or_the_environment(lab: Lab) -> None:
    secret = "hunter2"
    config = {"environment": [{"name": "PASSWORD", "value": secret}]}
    lab.ecs.answers.extend([_no(Kind.CAPACITY), _no(Kind.START_FAILURE)])

    lab.worker.take(lab.body(command=["psql", secret], executor_config=config))
    lab.pass_time(60)

    told = [(name, {field: fields[field] for field in EVENTS[name].fields}) for name, fields in lab.worker.events]
    assert len(told) >= 6
    assert secret not in json.dumps(told)
