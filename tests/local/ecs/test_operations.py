"""RunTask, DescribeTasks, StopTask, ListTasks over boto3, checked against the service model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ecs_queue.local.ecs import TimerRunner
from tests.fake_clock import FakeClock
from tests.local.ecs.checked_client import (
    Json,
    command_override,
    describe_task,
    make_checked_client,
    run_task,
    wait_for_status,
)
from tests.local.ecs.conftest import StartEcs

FOREVER = 3600.0
LOCAL = {"cluster": "local", "taskDefinition": "local"}


def _refused(call: Any, code: str, message: str, **parameters: Any) -> Json:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response: Json = caught.value.response
    assert response["Error"]["Code"] == code
    assert message in response["Error"]["Message"]
    return response


def test_run_task_returns_a_provisioning_task_with_the_given_parameters(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(FOREVER))
    response = client.run_task(
        **LOCAL,
        launchType="FARGATE",
        startedBy="ns/id/abc/1",
        group="nightly",
        overrides=command_override("echo", "ü"),
        tags=[{"key": "Team", "value": "data"}],
        networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    )
    [task] = response["tasks"]
    assert response["failures"] == []
    assert task["lastStatus"] == "PROVISIONING"
    assert task["desiredStatus"] == "RUNNING"
    assert task["version"] == 1
    assert task["startedBy"] == "ns/id/abc/1"
    assert task["group"] == "nightly"
    assert task["launchType"] == "FARGATE"
    assert task["tags"] == [{"key": "Team", "value": "data"}]
    assert task["overrides"]["containerOverrides"] == command_override("echo", "ü")["containerOverrides"]
    cluster, _, task_id = task["taskArn"].rpartition("/")
    assert cluster == "arn:aws:ecs:us-east-1:123456789012:task/local"
    assert len(task_id) == 32
    assert set(task_id) <= set("0123456789abcdef")
    assert "startedAt" not in task


def test_a_count_of_ten_makes_ten_tasks_and_eleven_is_refused(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(FOREVER))
    response = client.run_task(**LOCAL, count=10)
    assert len({task["taskArn"] for task in response["tasks"]}) == 10
    _refused(client.run_task, "InvalidParameterException", "count", **LOCAL, count=11)
    _refused(client.run_task, "InvalidParameterException", "count", **LOCAL, count=0)


def test_an_unknown_cluster_is_not_found_by_any_call_about_tasks(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    calls: list[tuple[Any, Json]] = [
        (client.run_task, {"taskDefinition": "local"}),
        (client.describe_tasks, {"tasks": ["0" * 32]}),
        (client.stop_task, {"task": "0" * 32}),
        (client.list_tasks, {}),
    ]
    for call, parameters in calls:
        _refused(call, "ClusterNotFoundException", "Cluster not found.", cluster="nowhere", **parameters)


def test_an_unknown_task_definition_is_a_client_exception(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    for name in ("nothing", "local:2", "local:0"):
        _refused(
            client.run_task,
            "ClientException",
            "TaskDefinition not found.",
            cluster="local",
            taskDefinition=name,
        )


def test_a_cluster_and_a_task_definition_may_be_named_by_arn(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    definition = client.describe_task_definition(taskDefinition="local")["taskDefinition"]
    cluster = client.describe_clusters(clusters=["local"])["clusters"][0]["clusterArn"]
    task = client.run_task(cluster=cluster, taskDefinition=definition["taskDefinitionArn"])["tasks"][0]
    assert task["clusterArn"] == cluster
    assert task["taskDefinitionArn"] == definition["taskDefinitionArn"]


def test_without_a_cluster_the_default_one_serves(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    assert client.run_task(taskDefinition="local")["tasks"][0]["clusterArn"].endswith(":cluster/default")


def test_an_override_for_a_container_that_is_not_there_is_refused(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    _refused(
        client.run_task,
        "InvalidParameterException",
        "Override for container named sidecar is not a container in the TaskDefinition.",
        **LOCAL,
        overrides=command_override("true", name="sidecar"),
    )


def test_launch_type_and_capacity_providers_exclude_each_other(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    strategy = [{"capacityProvider": "FARGATE_SPOT"}]
    _refused(
        client.run_task,
        "InvalidParameterException",
        "capacity provider",
        **LOCAL,
        launchType="FARGATE",
        capacityProviderStrategy=strategy,
    )
    task = client.run_task(**LOCAL, capacityProviderStrategy=strategy)["tasks"][0]
    assert (task["capacityProviderName"], task["launchType"]) == ("FARGATE_SPOT", "FARGATE")


def _overrides_of(length: int, letter: str = "x") -> Json:
    empty = len(json.dumps(command_override("echo", ""), separators=(",", ":")))
    return command_override("echo", letter * (length - empty))


@pytest.mark.parametrize("letter", ["x", "ü"])
def test_overrides_of_8192_characters_pass_and_one_more_is_refused(start_ecs: StartEcs, letter: str) -> None:
    _, client = start_ecs()
    assert client.run_task(**LOCAL, overrides=_overrides_of(8192, letter))["tasks"]
    _refused(
        client.run_task,
        "InvalidParameterException",
        "Container Overrides length must be at most 8192",
        **LOCAL,
        overrides=_overrides_of(8193, letter),
    )


@pytest.mark.parametrize(
    ("value", "accepted"), [("a" * 128, True), ("a" * 129, False), ("a.b", False), ("A-z_0/", True)]
)
def test_started_by_has_128_characters_of_its_alphabet(start_ecs: StartEcs, value: str, accepted: bool) -> None:
    _, client = start_ecs()
    if accepted:
        assert client.run_task(**LOCAL, startedBy=value)["tasks"][0]["startedBy"] == value
    else:
        _refused(client.run_task, "InvalidParameterException", "startedBy", **LOCAL, startedBy=value)


@pytest.mark.parametrize("token", ["", "a" * 65, "with blank", "ü"])
def test_a_client_token_outside_its_rules_is_refused(start_ecs: StartEcs, token: str) -> None:
    _, client = start_ecs()
    _refused(client.run_task, "InvalidParameterException", "clientToken", **LOCAL, clientToken=token)


def test_the_same_token_and_parameters_return_the_same_task(start_ecs: StartEcs) -> None:
    server, client = start_ecs(TimerRunner(FOREVER))
    first = client.run_task(**LOCAL, clientToken="t", count=2, startedBy="me")
    again = client.run_task(**LOCAL, clientToken="t", count=2, startedBy="me")
    assert [task["taskArn"] for task in again["tasks"]] == [task["taskArn"] for task in first["tasks"]]
    assert server.stats()["tasks_created"] == 2


def test_the_same_token_with_other_parameters_is_a_conflict_that_names_the_tasks(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(FOREVER))
    arn = run_task(client, "true", clientToken="t")
    response = _refused(client.run_task, "ConflictException", "client token", **LOCAL, clientToken="t")
    assert response["resourceIds"] == [arn]


def test_a_token_belongs_to_its_cluster(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    one = client.run_task(cluster="local", taskDefinition="local", clientToken="t")["tasks"][0]["taskArn"]
    two = client.run_task(cluster="default", taskDefinition="local", clientToken="t")["tasks"][0]["taskArn"]
    assert one != two


def test_a_refused_call_leaves_its_token_unused(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    _refused(
        client.run_task,
        "ClientException",
        "TaskDefinition not found.",
        cluster="local",
        taskDefinition="later",
        clientToken="t",
    )
    assert run_task(client, "true", clientToken="t")


def test_a_repeated_call_returns_only_arn_and_statuses_of_a_stopped_task(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    arn = run_task(client, "true", clientToken="t")
    wait_for_status(client, arn)
    again = client.run_task(**LOCAL, overrides=command_override("true"), clientToken="t")
    assert again["tasks"] == [{"taskArn": arn, "lastStatus": "STOPPED", "desiredStatus": "STOPPED"}]


def test_a_token_is_new_again_an_hour_after_its_task_stopped(start_ecs: StartEcs) -> None:
    clock = FakeClock()
    _, client = start_ecs(clock=clock, retention_seconds=10.0)
    arn = run_task(client, "true", clientToken="t")
    wait_for_status(client, arn)
    clock.advance(3599)
    assert run_task(client, "true", clientToken="t") == arn, "forgotten by DescribeTasks, but not by its token"
    clock.advance(1)
    assert run_task(client, "true", clientToken="t") != arn


def test_a_token_is_new_again_after_24_hours_though_its_task_still_runs(start_ecs: StartEcs) -> None:
    clock = FakeClock()
    _, client = start_ecs(TimerRunner(FOREVER), clock=clock)
    arn = run_task(client, "true", clientToken="t")
    clock.advance(86399)
    assert run_task(client, "true", clientToken="t") == arn
    clock.advance(1)
    assert run_task(client, "true", clientToken="t") != arn


def test_stopped_tasks_are_described_for_their_retention_and_missing_then(start_ecs: StartEcs) -> None:
    clock = FakeClock()
    server, client = start_ecs(clock=clock)
    arn = run_task(client, "true", startedBy="me")
    wait_for_status(client, arn)
    clock.advance(3599)
    assert describe_task(client, arn)["lastStatus"] == "STOPPED"
    clock.advance(1)
    response = client.describe_tasks(cluster="local", tasks=[arn])
    assert response["tasks"] == []
    assert response["failures"] == [{"arn": arn, "reason": "MISSING"}]
    assert client.list_tasks(cluster="local", startedBy="me", desiredStatus="STOPPED")["taskArns"] == []
    assert server.stats()["tasks"] == {}


def test_a_described_task_may_be_named_by_arn_or_id_in_any_order(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(FOREVER))
    arn = run_task(client, "true")
    unknown = "f" * 32
    response = client.describe_tasks(cluster="local", tasks=[unknown, arn.rpartition("/")[2], arn])
    assert [task["taskArn"] for task in response["tasks"]] == [arn, arn]
    [failure] = response["failures"]
    assert failure["arn"].endswith(f":task/local/{unknown}")


def test_a_task_of_another_cluster_is_missing(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(FOREVER))
    arn = run_task(client, "true")
    assert client.describe_tasks(cluster="default", tasks=[arn])["failures"][0]["reason"] == "MISSING"


def test_tags_are_described_on_request_only(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(FOREVER))
    arn = run_task(client, "true", tags=[{"key": "a", "value": "b"}])
    assert "tags" not in describe_task(client, arn)
    assert describe_task(client, arn, include=["TAGS"])["tags"] == [{"key": "a", "value": "b"}]


def test_describe_takes_one_to_100_tasks(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    ids = [f"{number:032x}" for number in range(101)]
    assert len(client.describe_tasks(cluster="local", tasks=ids[:100])["failures"]) == 100
    for refused in (ids, []):
        _refused(client.describe_tasks, "InvalidParameterException", "Tasks", cluster="local", tasks=refused)
    _refused(client.describe_tasks, "InvalidParameterException", "taskId length", cluster="local", tasks=["abc"])


def test_list_tasks_filters_by_started_by_and_desired_status(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    mine = run_task(client, "sleep", "3600", startedBy="me")
    ended = run_task(client, "true", startedBy="me")
    run_task(client, "sleep", "3600", startedBy="other")
    wait_for_status(client, ended)
    assert client.list_tasks(cluster="local", startedBy="me")["taskArns"] == [mine]
    stopped = client.list_tasks(cluster="local", startedBy="me", desiredStatus="STOPPED")
    assert stopped["taskArns"] == [ended]
    assert client.list_tasks(cluster="local", startedBy="nobody")["taskArns"] == []


def test_started_by_must_be_the_only_filter(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    _refused(
        client.list_tasks,
        "InvalidParameterException",
        "startedBy",
        cluster="local",
        startedBy="me",
        family="local",
    )


def test_list_tasks_filters_by_family_and_launch_type(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(FOREVER))
    fargate = run_task(client, "true", launchType="FARGATE")
    on_ec2 = run_task(client, "true", launchType="EC2")
    assert client.list_tasks(cluster="local", family="local")["taskArns"] == [fargate, on_ec2]
    assert client.list_tasks(cluster="local", family="other")["taskArns"] == []
    assert client.list_tasks(cluster="local", launchType="FARGATE")["taskArns"] == [fargate]


def test_list_tasks_gives_every_task_once_over_its_pages(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(FOREVER))
    arns = [run_task(client, "true", startedBy="me") for _ in range(7)]
    pages = client.get_paginator("list_tasks").paginate(
        cluster="local", startedBy="me", PaginationConfig={"PageSize": 3}
    )
    assert [page["taskArns"] for page in pages] == [arns[:3], arns[3:6], arns[6:]]


def test_exactly_a_full_page_has_no_next_token(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(FOREVER))
    for _ in range(3):
        run_task(client, "true")
    assert "nextToken" not in client.list_tasks(cluster="local", maxResults=3)


@pytest.mark.parametrize("token", ["", "!", "YWZ0ZXI6eA==", "bm9uc2Vuc2U="])
def test_a_next_token_that_was_never_given_is_refused(start_ecs: StartEcs, token: str) -> None:
    _, client = start_ecs()
    _refused(client.list_tasks, "InvalidParameterException", "Invalid token", cluster="local", nextToken=token)


@pytest.mark.parametrize("size", [0, 101])
def test_a_page_has_one_to_100_tasks(start_ecs: StartEcs, size: int) -> None:
    _, client = start_ecs()
    _refused(client.list_tasks, "InvalidParameterException", "maxResults", cluster="local", maxResults=size)


def test_filters_of_things_that_are_not_modelled_are_refused_by_name(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    _refused(client.list_tasks, "InvalidParameterException", "serviceName", cluster="local", serviceName="web")


def test_stopping_an_unknown_task_is_an_invalid_parameter(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    _refused(
        client.stop_task,
        "InvalidParameterException",
        "The referenced task was not found.",
        cluster="local",
        task="0" * 32,
    )


def test_a_stop_reason_of_more_than_255_characters_is_refused(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(FOREVER))
    arn = run_task(client, "true")
    _refused(client.stop_task, "InvalidParameterException", "255", cluster="local", task=arn, reason="x" * 256)
    assert client.stop_task(cluster="local", task=arn, reason="x" * 255)["task"]["stoppedReason"] == "x" * 255


def test_stopping_a_stopped_task_changes_nothing(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    before = wait_for_status(client, run_task(client, "true"))
    response = client.stop_task(cluster="local", task=before["taskArn"], reason="late")
    assert response["task"] == before


def test_parameters_that_boto3_refuses_are_refused_with_member_expected_and_found(start_ecs: StartEcs) -> None:
    server, _ = start_ecs()
    client = make_checked_client(server, validate=False)
    _refused(client.run_task, "InvalidParameterException", "the required member taskDefinition", cluster="local")
    overrides = command_override("true")
    overrides["containerOverrides"][0]["cpu"] = "much"
    message = "overrides.containerOverrides[0].cpu: expected a whole number"
    _refused(client.run_task, "InvalidParameterException", message, **LOCAL, overrides=overrides)
    _refused(client.run_task, "InvalidParameterException", "found 'EC3'", **LOCAL, launchType="EC3")
    tags = [{"key": str(number), "value": ""} for number in range(51)]
    _refused(client.run_task, "InvalidParameterException", "at most 50 items", **LOCAL, tags=tags)
    client.close()


def test_a_task_without_a_launch_type_runs_on_the_clusters_default_strategy(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(3600.0))
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    client.create_cluster(clusterName="spot", defaultCapacityProviderStrategy=strategy)
    for parameters, provider in (({}, "FARGATE_SPOT"), ({"launchType": "EC2"}, None)):
        task = client.run_task(cluster="spot", taskDefinition="local", **parameters)["tasks"][0]
        assert task.get("capacityProviderName") == provider
