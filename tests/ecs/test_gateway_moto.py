"""The gateway's contract against an ECS that this project did not write: moto's server."""

from __future__ import annotations

import time

import boto3
import pytest

from ecs_queue.ecs.clients import EcsClients, Target
from ecs_queue.ecs.gateway import BotoEcsGateway
from ecs_queue.findings import Reporter, Severity
from ecs_queue.protocol.ecs_results import EcsErrorKind, RunTaskResultKind
from ecs_queue.protocol.observation import observe
from ecs_queue.tasks import EcsTaskState

REGION = "eu-central-1"


@pytest.fixture
def cluster(moto_url: str) -> str:
    ecs = boto3.client("ecs", region_name=REGION, endpoint_url=moto_url)
    ecs.create_cluster(clusterName="jobs")
    ecs.register_task_definition(
        family="job",
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        cpu="256",
        memory="512",
        containerDefinitions=[{"name": "main", "image": "busybox", "memory": 256}],
    )
    ec2 = boto3.client("ec2", region_name=REGION, endpoint_url=moto_url)
    return str(ec2.describe_subnets()["Subnets"][0]["SubnetId"])


@pytest.fixture
def gateway(clients: EcsClients) -> BotoEcsGateway:
    return BotoEcsGateway(clients, time.monotonic)


@pytest.fixture
def target(moto_url: str) -> Target:
    return Target(REGION, moto_url, None, "jobs")


def launch(gateway: BotoEcsGateway, target: Target, subnet: str, started_by: str) -> str:
    kwargs = {
        "taskDefinition": "job",
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": []}},
        "overrides": {"containerOverrides": [{"name": "main", "command": ["true"]}]},
    }
    result = gateway.run_task(
        target, kwargs, client_token=started_by, started_by=started_by, deadline=time.monotonic() + 30
    )
    assert result.kind is RunTaskResultKind.STARTED, result.reason
    assert result.arn
    return result.arn


def test_a_task_is_launched_found_followed_and_ends(
    gateway: BotoEcsGateway, target: Target, cluster: str, http_client: str
) -> None:
    started_by = f"followed-{http_client}"
    assert gateway.check_cluster(target, Reporter("q")).severity is Severity.OK
    arn = launch(gateway, target, cluster, started_by)
    assert gateway.list_tasks(target, started_by, "").arns == [arn]
    assert gateway.list_tasks(target, "another", "").arns == []
    seen = None
    for _look in range(10):
        described = gateway.describe_tasks(target, [arn])
        assert described.error is None
        seen = observe(described.tasks[0], "main")
        if seen.has_ended:
            break
    assert seen is not None
    assert (seen.arn, seen.end_kind, seen.state, seen.exit_code) == (arn, "ran", EcsTaskState.SUCCESS, 0)
    assert gateway.list_tasks(target, started_by, "").arns == [arn]


def test_a_task_is_stopped(gateway: BotoEcsGateway, target: Target, cluster: str) -> None:
    arn = launch(gateway, target, cluster, "stopped")
    result = gateway.stop_task(target, arn, "asked to")
    assert result.error is None
    assert result.task is not None
    assert result.task["taskArn"] == arn


@pytest.mark.usefixtures("cluster")
def test_silence_about_a_task_is_not_taken_for_missing(gateway: BotoEcsGateway, target: Target) -> None:
    """ECS names unknown tasks in failures[]; moto leaves them out."""
    result = gateway.describe_tasks(target, [f"arn:aws:ecs:{REGION}:123456789012:task/jobs/{'0' * 32}"])
    assert (result.tasks, result.missing_arns) == ([], [])
    assert result.error is not None
    assert result.error.kind is EcsErrorKind.UNAVAILABLE


@pytest.mark.usefixtures("cluster")
def test_an_unknown_cluster_is_the_profiles_fault(gateway: BotoEcsGateway, moto_url: str) -> None:
    elsewhere = Target(REGION, moto_url, None, "nowhere")
    result = gateway.run_task(
        elsewhere,
        {"taskDefinition": "job"},
        client_token="t",
        started_by="s",
        deadline=time.monotonic() + 30,
    )
    assert (result.kind, result.error_code) == (RunTaskResultKind.UNUSABLE_PROFILE, "ClusterNotFoundException")
    trouble = gateway.describe_tasks(elsewhere, ["x"]).error
    assert trouble is not None
    assert trouble.kind is EcsErrorKind.CLUSTER_NOT_FOUND
    assert "does not exist" in gateway.check_cluster(elsewhere, Reporter("q")).text


def test_a_role_of_another_account_is_assumed(
    gateway: BotoEcsGateway, target: Target, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert target.endpoint_url is not None
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", target.endpoint_url)
    role = Target(REGION, target.endpoint_url, "arn:aws:iam::123456789012:role/launcher", "jobs")
    launch(gateway, role, cluster, "assumed")
