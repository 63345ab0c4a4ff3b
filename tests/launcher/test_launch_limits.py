"""Conflicts, stops, deadlines and quotas around a launch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ecs_queue.core.answers import Kind, RunAnswer
from ecs_queue.core.record import startedby_of
from ecs_queue.core.states import State
from tests.launcher.lab import Lab


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
    def test_a_worker_that_stops_gives_the_message_back(self) -> None:
        lab = Lab(run_task_rate=1, run_task_burst=1)
        assert lab.worker.take(lab.body("a"))
        lab.worker.stopping.set()

        assert not lab.worker.take(lab.body("b"))

        assert lab.memory.get(["b"]) == [None]

    def test_a_message_without_a_launch_costs_no_token(self) -> None:
        lab = Lab(run_task_rate=1, run_task_burst=2)
        body = lab.body("a")
        lab.worker.take(body)
        for _ in range(5):
            assert lab.worker.take(body)

        assert lab.worker.take(lab.body("b"))

        assert lab.worker.rests == []


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

    assert len(lab.worker.events) >= 6
    assert secret not in json.dumps(lab.worker.events)
