"""The model of ECS keeps the promises that the protocol stands on, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulation.ecs import REMEMBERED, SIGNATURE, ModelEcs, Task
from tests.simulation.faults import Faults
from tests.simulation.process import Stage


class _Lab:
    """A model of ECS and its time."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.stage = Stage(1, faults or Faults(), None)
        self.created: list[Task] = []
        self.ecs = ModelEcs(
            self.stage.scheduler,
            self.stage.rng,
            self.stage.present_faults,
            self.created.append,
            lambda task, what: None,
        )

    def run(self, token: str = "t", signed_ago: float = 0.0, **more: Any) -> str:
        request = {"clientToken": token, "startedBy": "n/a/x/1", **more}
        answer = self.ecs.run(self.stage.now - signed_ago, request)
        return str(answer["tasks"][0]["taskArn"])

    def wait(self, seconds: float) -> None:
        until = self.stage.now + seconds
        self.stage.scheduler.at(until, lambda: None)
        self.stage.scheduler.run(lambda: self.stage.now >= until, 1)


def test_the_same_token_starts_nothing_again_until_an_hour_after_its_task() -> None:
    lab = _Lab()
    first = lab.run()
    lab.wait(600.0)
    assert not lab.created[0].alive
    assert lab.run() == first
    lab.wait(REMEMBERED)
    assert lab.run() != first


def test_a_token_with_other_arguments_is_a_conflict_that_names_the_task() -> None:
    lab = _Lab()
    arn = lab.run()
    with pytest.raises(ClientError) as caught:
        lab.run(taskDefinition="other")
    told: Any = caught.value.response
    assert (told["Error"]["Code"], told["resourceIds"]) == ("ConflictException", [arn])


def test_an_old_signature_is_refused() -> None:
    lab = _Lab()
    with pytest.raises(ClientError, match="Signature expired"):
        lab.run(signed_ago=SIGNATURE + 1.0)
    assert lab.created == []


def test_a_stopped_task_is_shown_for_an_hour() -> None:
    lab = _Lab()
    arn = lab.run()
    lab.wait(600.0)
    assert lab.ecs.describe([arn])["tasks"][0]["lastStatus"] == "STOPPED"
    assert lab.ecs.list("n/a/x/1", "STOPPED") == {"taskArns": [arn]}
    lab.wait(REMEMBERED)
    assert lab.ecs.describe([arn])["failures"] == [{"arn": arn, "reason": "MISSING"}]
    assert lab.ecs.list("n/a/x/1", "STOPPED") == {"taskArns": []}


def test_a_stop_names_the_end_of_the_task() -> None:
    lab = _Lab()
    lab.ecs.stop(lab.run())
    lab.wait(60.0)
    task = lab.created[0]
    assert (task.alive, task.stop_code) == (False, "UserInitiated")
