"""The runner that starts no process."""

from __future__ import annotations

import pytest

from ecs_queue.local.ecs import TimerRunner
from tests.local.ecs.checked_client import command_override, run_task, wait_for_status
from tests.local.ecs.conftest import StartEcs


@pytest.mark.parametrize(
    ("argv", "environment", "code"),
    [
        (["exit", "3"], {}, 3),
        (["sleep", "0.05"], {}, 0),
        (["/bin/sleep", "0"], {}, 0),
        (["python", "job.py"], {"LOCAL_ECS_EXIT_CODE": "9"}, 9),
        (["python"], {"LOCAL_ECS_SECONDS": "0.05"}, 0),
        (["anything"], {}, 0),
    ],
)
def test_the_command_or_the_environment_says_how_a_task_ends(
    start_ecs: StartEcs, argv: list[str], environment: dict[str, str], code: int
) -> None:
    _, client = start_ecs(TimerRunner())
    arn = run_task(client, overrides=command_override(*argv, environment=environment))
    assert wait_for_status(client, arn)["containers"][0]["exitCode"] == code


def test_a_task_runs_for_the_seconds_it_names(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(3600.0))
    task = wait_for_status(client, run_task(client, "sleep", "0.3"))
    assert (task["stoppedAt"] - task["startedAt"]).total_seconds() >= 0.29


def test_an_invalid_number_fails_the_start(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner())
    task = wait_for_status(client, run_task(client, "sleep", "long"))
    assert task["stopCode"] == "TaskFailedToStart"
    assert "CannotStartContainerError" in task["stoppedReason"]


def test_a_stopped_task_ends_with_143_even_when_it_was_stopped_at_once(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(3600.0))
    early, late = run_task(client, "true"), run_task(client, "true")
    wait_for_status(client, late, "RUNNING")
    for arn in (early, late):
        client.stop_task(cluster="local", task=arn)
        client.stop_task(cluster="local", task=arn)
        task = wait_for_status(client, arn)
        assert task["stopCode"] == "UserInitiated"
        assert task["containers"][0]["exitCode"] == 143
