"""Clusters and task definitions."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from ecs_queue.local.ecs import TimerRunner
from tests.local.ecs.checked_client import run_task, wait_for_status
from tests.local.ecs.conftest import StartEcs

MAIN = {"name": "main", "image": "image", "command": ["true"]}


def _refused(call: Any, code: str, message: str, **parameters: Any) -> None:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    assert caught.value.response["Error"]["Code"] == code
    assert message in caught.value.response["Error"]["Message"]


def test_a_fresh_server_has_what_a_first_task_needs(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    names = [one["clusterName"] for one in client.describe_clusters(clusters=["default", "local"])["clusters"]]
    assert names == ["default", "local"]
    definition = client.describe_task_definition(taskDefinition="local")["taskDefinition"]
    assert [one["name"] for one in definition["containerDefinitions"]] == ["main"]


def test_the_names_of_what_exists_from_the_start_are_options(start_ecs: StartEcs) -> None:
    _, client = start_ecs(clusters=("prod",), task_definition="job", container_name="worker")
    assert client.describe_clusters(clusters=["prod", "local"])["failures"][0]["reason"] == "MISSING"
    definition = client.describe_task_definition(taskDefinition="job")["taskDefinition"]
    assert definition["containerDefinitions"][0]["name"] == "worker"


def test_describe_clusters_counts_tasks_and_takes_the_default_cluster(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(3600.0))
    wait_for_status(client, run_task(client, "true"), "RUNNING")
    wait_for_status(client, run_task(client, "exit", "0", launchType="FARGATE"), "RUNNING")
    [cluster] = client.describe_clusters(clusters=["local"])["clusters"]
    assert (cluster["runningTasksCount"], cluster["pendingTasksCount"]) == (2, 0)
    [default] = client.describe_clusters()["clusters"]
    assert (default["clusterName"], default["runningTasksCount"]) == ("default", 0)


def test_a_cluster_is_made_once_and_its_tags_are_shown_on_request(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    made = client.create_cluster(clusterName="mine", tags=[{"key": "a", "value": "b"}])["cluster"]
    assert client.create_cluster(clusterName="mine")["cluster"] == made
    [plain] = client.describe_clusters(clusters=["mine"])["clusters"]
    [tagged] = client.describe_clusters(clusters=[made["clusterArn"]], include=["TAGS"])["clusters"]
    assert "tags" not in plain
    assert tagged["tags"] == [{"key": "a", "value": "b"}]


def test_a_cluster_name_has_its_alphabet(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    _refused(client.create_cluster, "InvalidParameterException", "Identifiers", clusterName="a b")


def test_a_cluster_with_tasks_cannot_be_deleted_and_an_empty_one_is_gone(start_ecs: StartEcs) -> None:
    _, client = start_ecs(TimerRunner(3600.0))
    arn = run_task(client, "true")
    _refused(client.delete_cluster, "ClusterContainsTasksException", "Tasks are active", cluster="local")
    client.stop_task(cluster="local", task=arn)
    wait_for_status(client, arn)
    assert client.delete_cluster(cluster="local")["cluster"]["status"] == "INACTIVE"
    _refused(client.delete_cluster, "ClusterNotFoundException", "Cluster not found.", cluster="local")


def test_registering_again_makes_the_next_revision_and_the_family_means_the_newest(
    start_ecs: StartEcs,
) -> None:
    _, client = start_ecs()
    first = client.register_task_definition(family="job", containerDefinitions=[MAIN])["taskDefinition"]
    second = client.register_task_definition(
        family="job", containerDefinitions=[{**MAIN, "command": ["false"]}], tags=[{"key": "a", "value": "b"}]
    )["taskDefinition"]
    assert (first["revision"], second["revision"]) == (1, 2)
    newest = client.describe_task_definition(taskDefinition="job", include=["TAGS"])
    assert newest["taskDefinition"] == second
    assert newest["tags"] == [{"key": "a", "value": "b"}]
    older = client.describe_task_definition(taskDefinition=first["taskDefinitionArn"])
    assert older["taskDefinition"] == first


@pytest.mark.parametrize(
    ("containers", "message"),
    [
        ([], "empty"),
        ([{"name": "a"}], "Container.image"),
        ([{"image": "a"}], "Container.name"),
        ([MAIN, MAIN], "unique"),
        ([{**MAIN, "essential": False}], "essential"),
    ],
)
def test_container_definitions_that_ecs_refuses_are_refused(
    start_ecs: StartEcs, containers: list[dict[str, Any]], message: str
) -> None:
    _, client = start_ecs()
    _refused(
        client.register_task_definition,
        "ClientException",
        message,
        family="job",
        containerDefinitions=containers,
    )
    _refused(
        client.describe_task_definition,
        "ClientException",
        "Unable to describe task definition.",
        taskDefinition="job",
    )


def test_a_family_name_has_its_alphabet_and_a_revision_is_a_number(start_ecs: StartEcs) -> None:
    _, client = start_ecs()
    _refused(
        client.register_task_definition,
        "ClientException",
        "Family",
        family="a b",
        containerDefinitions=[MAIN],
    )
    _refused(
        client.describe_task_definition,
        "InvalidParameterException",
        "Invalid revision number",
        taskDefinition="local:newest",
    )
