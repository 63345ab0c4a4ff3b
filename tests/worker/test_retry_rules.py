"""Failed attempts under the retry rules of their queue or request."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from ecs_queue.protocol.runs import RunEnd
from ecs_queue.protocol.states import State
from tests.worker.harness import WorkerHarness
from tests.worker.warm_harness import WARM, settle, start


def queue_rules(*rules: Mapping[str, object]) -> dict[str, str]:
    return {"AIRFLOW__AWS_ECS_EXECUTOR__RETRY_RULES": json.dumps(rules)}


RETRY_3 = {"on_exit_code": "3", "action": "retry"}


def test_a_rule_of_the_queue_launches_again_what_the_relaunch_policy_would_end() -> None:
    harness = WorkerHarness(queue_rules(RETRY_3))
    harness.ecs.finish(harness.launch(), exit_code=3)
    harness.advance_in_steps(10)

    record = harness.record()
    assert (record.state, record.attempt) == (State.LAUNCHED, 2)
    harness.ecs.finish(record.arn, exit_code=4)
    harness.advance_in_steps(10)
    assert (harness.state(), harness.record().attempts) == (State.FAILED, 2)


def test_it_ends_with_the_last_attempt_unless_no_attempt_is_counted() -> None:
    harness = WorkerHarness(queue_rules(RETRY_3))
    for attempts in (2, 3):
        harness.ecs.finish(harness.record().arn if attempts == 3 else harness.launch(), exit_code=3)
        harness.advance_in_steps(15)
        assert harness.record().attempt == attempts
    harness.ecs.finish(harness.record().arn, exit_code=3)
    harness.advance_in_steps(15)
    assert harness.state() is State.FAILED

    harness = WorkerHarness(queue_rules(RETRY_3 | {"counts_attempt": False, "delay": 30}))
    harness.launch()
    for _ in range(5):
        harness.ecs.finish(harness.record().arn, exit_code=3)
        harness.advance_in_steps(25)
        assert harness.state() is State.QUEUED
        harness.advance_in_steps(10)
    assert (harness.state(), harness.record().attempt, harness.record().launch) == (State.LAUNCHED, 1, 6)


def test_a_rule_may_end_what_never_started() -> None:
    harness = WorkerHarness(queue_rules({"on_reason": "CannotPull*", "action": "fail"}))
    harness.ecs.fail_to_start(harness.launch())
    harness.advance_in_steps(5)
    assert (harness.state(), harness.record().attempts) == (State.REMOVED, 1)


def test_a_request_has_its_own_rules_or_none() -> None:
    harness = WorkerHarness(queue_rules(RETRY_3))
    harness.ecs.finish(harness.launch("own", retry_rules=[{"on_exit_code": "4", "action": "retry"}]), exit_code=4)
    harness.ecs.finish(harness.launch("none", retry_rules=[]), exit_code=3)
    harness.advance_in_steps(10)
    assert harness.record("own").attempt == 2
    assert harness.state("none") is State.FAILED


def test_only_where_the_queue_allows_it() -> None:
    harness = WorkerHarness(queue_rules(RETRY_3) | {"AIRFLOW__AWS_ECS_EXECUTOR__ALLOWED_OVERRIDES": "cpu"})
    harness.worker.handle_message(harness.new_envelope("own", retry_rules=[RETRY_3]))
    assert "retry_rules may not be overridden" in harness.record("own").reason
    harness.launch("none", retry_rules=[])
    assert harness.state("none") is State.LAUNCHED


class TestWarmPool:
    @pytest.mark.parametrize(("exit_code", "state"), [(3, State.LAUNCHED), (4, State.FAILED)])
    def test_a_rule_decides_about_the_end_that_a_runner_reports(self, exit_code: int, state: State) -> None:
        harness = WorkerHarness(WARM | queue_rules(RETRY_3))
        runner = start(harness)
        runner.next(RunEnd(turn=1, exit_code=exit_code))
        settle(harness)
        assert harness.worker.emitted("decision.runner_end")
        harness.advance_in_steps(10)
        record = harness.record()
        assert (record.state, record.attempt) == (state, 2 if exit_code == 3 else 1)

    def test_a_success_needs_no_ruling(self) -> None:
        harness = WorkerHarness(WARM | queue_rules(RETRY_3))
        start(harness).next(RunEnd(turn=1, exit_code=0))
        settle(harness)
        assert harness.state() is State.SUCCESS
        assert not harness.worker.emitted("decision.runner_end")

    def test_a_rule_may_end_a_runner_that_never_started(self) -> None:
        harness = WorkerHarness(WARM | queue_rules({"on_reason": "CannotPull*", "action": "fail"}))
        harness.ecs.fail_to_start(harness.launch())
        harness.advance_in_steps(20)
        assert harness.state() is State.REMOVED
