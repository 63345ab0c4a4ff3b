"""Statuses, versions, timestamps and reasons of a task, step by step."""

from __future__ import annotations

from typing import Any

from ecs_queue.local.ecs import FaultOptions, TimerRunner
from tests.fake_clock import FakeClock
from tests.local.ecs.checked_client import (
    ManualRunner,
    command_override,
    describe_task,
    run_task,
    wait_for_status,
)
from tests.local.ecs.conftest import StartEcs

SIDECAR = [
    {"name": "log", "image": "log", "essential": False},
    {"name": "main", "image": "main", "command": ["true"]},
    {"name": "proxy", "image": "proxy"},
]


def test_a_task_runs_through_its_statuses_with_a_version_for_each(start_ecs: StartEcs) -> None:
    runner, clock = ManualRunner(), FakeClock()
    _, client = start_ecs(runner, clock, shutdown_delay_seconds=60.0)
    arn = run_task(client, "true")
    _, listener = runner.wait_for_start()
    pending = describe_task(client, arn)
    runner.notify(listener.on_started)
    running = describe_task(client, arn)
    clock.advance(5)
    runner.notify(listener.on_exited, 3)
    ending = describe_task(client, arn)
    assert [task["lastStatus"] for task in (pending, running, ending)] == [
        "PENDING",
        "RUNNING",
        "DEPROVISIONING",
    ]
    assert [task["desiredStatus"] for task in (pending, running, ending)] == ["RUNNING", "RUNNING", "STOPPED"]
    assert [task["version"] for task in (pending, running, ending)] == [2, 3, 4]
    assert ending["startedAt"].timestamp() == clock.now - 5
    assert ending["executionStoppedAt"].timestamp() == ending["stoppingAt"].timestamp() == clock.now
    assert "stoppedAt" not in ending
    assert ending["containers"][0]["exitCode"] == 3, "exit code and stop code come before STOPPED"
    assert ending["stopCode"] == "EssentialContainerExited"


def test_a_stopped_task_has_reason_and_time(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    task = wait_for_status(client, run_task(client, "exit", "3"))
    assert task["stopCode"] == "EssentialContainerExited"
    assert task["stoppedReason"] == "Essential container in task exited"
    assert task["containers"][0] | {"name": "main", "lastStatus": "STOPPED", "exitCode": 3} == task["containers"][0]
    assert task["version"] == 5
    order = ["createdAt", "pullStartedAt", "pullStoppedAt", "startedAt", "stoppingAt", "executionStoppedAt"]
    times = [task[name] for name in (*order, "stoppedAt")]
    assert times == sorted(times)


def test_a_start_failure_has_a_reason_but_neither_exit_code_nor_start(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner)
    arn = run_task(client, "true")
    _, listener = runner.wait_for_start()
    runner.notify(listener.on_start_failed, "CannotStartContainerError: no")
    task = wait_for_status(client, arn)
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"] == "CannotStartContainerError: no"
    assert task["containers"][0]["reason"] == "CannotStartContainerError: no"
    assert "exitCode" not in task["containers"][0]
    assert "startedAt" not in task


def test_an_injected_start_failure_never_reaches_the_runner(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner, faults=FaultOptions(start_failure=1.0))
    task = wait_for_status(client, run_task(client, "true"))
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotPullContainerError")
    assert runner.started == []


def test_a_stop_while_running_is_user_initiated_and_keeps_the_real_exit_code(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner)
    arn = run_task(client, "true", tags=[{"key": "a", "value": "b"}])
    spec, listener = runner.wait_for_start()
    runner.notify(listener.on_started)
    stopping = client.stop_task(cluster="local", task=arn, reason="enough")["task"]
    assert (stopping["lastStatus"], stopping["desiredStatus"]) == ("RUNNING", "STOPPED")
    assert runner.stop_requests == [spec.task_id]
    client.stop_task(cluster="local", task=arn, reason="again")
    assert runner.stop_requests == [spec.task_id]
    runner.notify(listener.on_exited, 143)
    task = describe_task(client, arn, include=["TAGS"])
    assert task["lastStatus"] == "STOPPED"
    assert (task["stopCode"], task["stoppedReason"]) == ("UserInitiated", "enough")
    assert task["containers"][0]["exitCode"] == 143
    assert task["tags"] == [], "StopTask deletes the tags"


def test_a_stop_before_the_start_ends_a_task_that_never_ran(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner, provision_seconds=(3600.0, 3600.0))
    arn = run_task(client, "true")
    assert describe_task(client, arn)["lastStatus"] == "PROVISIONING"
    client.stop_task(cluster="local", task=arn)
    task = wait_for_status(client, arn)
    assert task["stopCode"] == "UserInitiated"
    assert "startedAt" not in task
    assert "exitCode" not in task["containers"][0]
    assert runner.started == []


def test_a_stop_that_meets_a_start_failure_stays_user_initiated(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner)
    arn = run_task(client, "true")
    _, listener = runner.wait_for_start()
    client.stop_task(cluster="local", task=arn)
    runner.notify(listener.on_start_failed, "CannotStartContainerError: no")
    assert describe_task(client, arn)["stopCode"] == "UserInitiated"


def test_a_stop_after_the_end_has_begun_changes_no_reason(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner, shutdown_delay_seconds=60.0)
    arn = run_task(client, "true")
    _, listener = runner.wait_for_start()
    runner.notify(listener.on_started)
    runner.notify(listener.on_exited, 0)
    assert client.stop_task(cluster="local", task=arn)["task"]["stopCode"] == "EssentialContainerExited"


def test_the_time_of_provisioning_is_spent_provisioning_and_pending(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner, provision_seconds=(0.2, 0.2))
    arn = run_task(client, "true")
    wait_for_status(client, arn, "PENDING")
    assert runner.started == []
    runner.wait_for_start()


def test_each_task_draws_its_own_time_of_provisioning_from_the_range(start_ecs: StartEcs) -> None:
    _, client = start_ecs(ManualRunner(), provision_seconds=(0.0, 100.0), faults=FaultOptions(seed=2601))
    arns = [run_task(client, "true") for _ in range(4)]  # the seed draws 83.7, 0.2, 75.0 and 93.6 s
    wait_for_status(client, arns[1], "PENDING")
    assert [describe_task(client, arn)["lastStatus"] for arn in arns] == [
        *("PROVISIONING", "PENDING", "PROVISIONING", "PROVISIONING")
    ]


def test_sidecars_live_as_long_as_the_first_essential_container(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner)
    client.register_task_definition(family="three", containerDefinitions=SIDECAR)
    response = client.run_task(cluster="local", taskDefinition="three", overrides=command_override("echo"))
    arn = response["tasks"][0]["taskArn"]
    spec, listener = runner.wait_for_start()
    assert spec.command == ("echo",)
    runner.notify(listener.on_started)
    assert {one["lastStatus"] for one in describe_task(client, arn)["containers"]} == {"RUNNING"}
    runner.notify(listener.on_exited, 7)
    codes = {one["name"]: one["exitCode"] for one in describe_task(client, arn)["containers"]}
    assert codes == {"main": 7, "log": 0, "proxy": 0}


def test_environment_and_command_come_from_the_definition_then_the_override(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner, stop_timeout_seconds=9.0)
    environment = [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]
    main: dict[str, Any] = {"name": "main", "image": "i", "entryPoint": ["env"], "command": ["printf"]}
    client.register_task_definition(
        family="defined", containerDefinitions=[{**main, "environment": environment, "stopTimeout": 4}]
    )
    client.run_task(cluster="local", taskDefinition="defined")
    override = {"name": "main", "environment": [{"name": "B", "value": "2"}, {"name": "C", "value": ""}]}
    client.run_task(
        cluster="local",
        taskDefinition="defined",
        overrides={"containerOverrides": [{**override, "command": ["echo", "x"]}]},
    )
    run_task(client, "true")
    plain, _ = runner.wait_for_start(1)
    overridden, _ = runner.wait_for_start(2)
    other, _ = runner.wait_for_start(3)
    assert plain.command == ("env", "printf")
    assert overridden.command == ("env", "echo", "x")
    assert {name: overridden.environment[name] for name in "ABC"} == {"A": "1", "B": "2", "C": ""}
    assert (plain.stop_timeout, other.stop_timeout) == (4, 9.0)


def test_only_the_containers_of_runners_get_their_variables(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner, runner_environment={"SECRET": "x"})
    for number, environment in enumerate(({}, {"ECS_QUEUE_RUNNER": "{}"}), 1):
        run_task(client, overrides=command_override("true", environment=environment))
        spec, _ = runner.wait_for_start(number)
        assert ("SECRET" in spec.environment) is bool(environment)


def test_tags_of_the_definition_are_propagated_on_request(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(3600.0))
    tags = [{"key": "a", "value": "definition"}, {"key": "b", "value": "definition"}]
    client.register_task_definition(family="tagged", containerDefinitions=[{"name": "main", "image": "i"}], tags=tags)
    response = client.run_task(
        cluster="local",
        taskDefinition="tagged",
        propagateTags="TASK_DEFINITION",
        tags=[{"key": "a", "value": "mine"}],
    )
    found = {tag["key"]: tag["value"] for tag in response["tasks"][0]["tags"]}
    assert found == {"a": "mine", "b": "definition"}
