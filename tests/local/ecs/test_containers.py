"""Which container of a task the local ECS executes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.ecs.checked_client import ManualRunner, command_override, wait_for_status
from tests.local.ecs.conftest import StartEcs

#: Side-cars that users have beside the main container: without a command, as FireLens, and with one of their own.
FIRELENS: dict[str, Any] = {"name": "log-router", "image": "fluent-bit"}
AGENT: dict[str, Any] = {"name": "agent", "image": "agent", "command": ["touch", "/tmp/must-not-be-run"]}
MAINS: list[dict[str, Any]] = [{"name": "main", "image": "main", "essential": essential} for essential in (True, False)]


def _start(client: Any, containers: list[dict[str, Any]], **more: Any) -> str:
    client.register_task_definition(family="several", containerDefinitions=containers)
    response = client.run_task(cluster="local", taskDefinition="several", **more)
    arn: str = response["tasks"][0]["taskArn"]
    return arn


@pytest.mark.parametrize("main", MAINS, ids=["essential", "not-essential"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_the_container_whose_command_is_overridden_is_run(
    start_ecs: StartEcs, main: dict[str, Any], order: tuple[int, ...]
) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner)
    containers = [FIRELENS, AGENT, main]
    arn = _start(client, [containers[place] for place in order], overrides=command_override("sh", "-c", "exit 3"))
    spec, listener = runner.wait_for_start()
    assert spec.command == ("sh", "-c", "exit 3")
    runner.notify(listener.on_started)
    runner.notify(listener.on_exited, 3)
    codes = {each["name"]: each["exitCode"] for each in wait_for_status(client, arn)["containers"]}
    assert codes == {"main": 3, "log-router": 0, "agent": 0}
    assert len(runner.started) == 1


def test_several_overridden_commands_are_refused_with_a_sentence(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    server, client = start_ecs(runner)
    overrides = {"containerOverrides": [{"name": name, "command": ["true"]} for name in ("agent", "main")]}
    with pytest.raises(ClientError, match="the commands of agent, main are overridden"):
        _start(client, [AGENT, MAINS[0]], overrides=overrides)
    assert (runner.started, server.stats()["tasks_created"]) == ([], 0)


def test_an_environment_for_a_side_car_does_not_run_it(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner)
    environment = [{"name": "LEVEL", "value": "debug"}]
    overrides = {
        "containerOverrides": [
            {"name": "agent", "environment": environment},
            *command_override("true")["containerOverrides"],
        ]
    }
    _start(client, [AGENT, MAINS[0]], overrides=overrides)
    spec, _ = runner.wait_for_start()
    assert spec.command == ("true",)
    assert "LEVEL" not in spec.environment


def test_without_an_overridden_command_an_essential_container_with_a_program_is_run(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner)
    _start(client, [{**AGENT, "essential": False}, FIRELENS, {**MAINS[0], "entryPoint": ["true"]}])
    spec, _ = runner.wait_for_start()
    assert spec.command == ("true",)
