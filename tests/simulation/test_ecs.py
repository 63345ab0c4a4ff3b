"""The model of ECS keeps the promises that the protocol stands on, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulation.ecs import RETENTION_SECONDS, SIGNATURE_SECONDS, SimEcs, SimTask
from tests.simulation.faults import SimFaults
from tests.simulation.process import SimulationContext


class _SimEcsHarness:
    """A model of ECS and its time."""

    def __init__(self, faults: SimFaults | None = None) -> None:
        self.context = SimulationContext(1, faults or SimFaults(), None)
        self.created: list[SimTask] = []
        self.ecs = SimEcs(
            self.context.scheduler,
            self.context.rng,
            self.context.present_faults,
            self.created.append,
            lambda task, what: None,
        )

    def run(self, token: str = "t", signed_ago: float = 0.0, **more: Any) -> str:
        request = {"clientToken": token, "startedBy": "n/a/x/1", **more}
        reply = self.ecs.run_task(self.context.now - signed_ago, request)
        return str(reply["tasks"][0]["taskArn"])

    def wait(self, seconds: float) -> None:
        until = self.context.now + seconds
        self.context.scheduler.call_at(until, lambda: None)
        self.context.scheduler.run(lambda: self.context.now >= until, 1)


def test_the_same_token_starts_nothing_again_until_an_hour_after_its_task() -> None:
    harness = _SimEcsHarness()
    first = harness.run()
    harness.wait(600.0)
    assert not harness.created[0].is_running
    assert harness.run() == first
    harness.wait(RETENTION_SECONDS)
    assert harness.run() != first


def test_a_token_with_other_arguments_is_a_conflict_that_names_the_task() -> None:
    harness = _SimEcsHarness()
    arn = harness.run()
    with pytest.raises(ClientError) as caught:
        harness.run(taskDefinition="other")
    response: Any = caught.value.response
    assert (response["Error"]["Code"], response["resourceIds"]) == ("ConflictException", [arn])


def test_an_old_signature_is_refused() -> None:
    harness = _SimEcsHarness()
    with pytest.raises(ClientError, match="Signature expired"):
        harness.run(signed_ago=SIGNATURE_SECONDS + 1.0)
    assert harness.created == []


def test_a_stopped_task_is_shown_for_an_hour() -> None:
    harness = _SimEcsHarness()
    arn = harness.run()
    harness.wait(600.0)
    assert harness.ecs.describe_tasks([arn])["tasks"][0]["lastStatus"] == "STOPPED"
    assert harness.ecs.list_tasks("n/a/x/1", "STOPPED") == {"taskArns": [arn]}
    harness.wait(RETENTION_SECONDS)
    assert harness.ecs.describe_tasks([arn])["failures"] == [{"arn": arn, "reason": "MISSING"}]
    assert harness.ecs.list_tasks("n/a/x/1", "STOPPED") == {"taskArns": []}


def test_a_stop_names_the_end_of_the_task() -> None:
    harness = _SimEcsHarness()
    harness.ecs.stop_task(harness.run())
    harness.wait(60.0)
    task = harness.created[0]
    assert (task.is_running, task.stop_code) == (False, "UserInitiated")
