"""What the doctor finds about the variants of a queue's capacity, in the clusters and Regions of a moto account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.exceptions import NoCredentialsError
from botocore.stub import Stubber
from moto import mock_aws

from ecs_queue.doctor.capacity_fallback import check_capacity_fallback
from ecs_queue.ecs.clients import Target
from ecs_queue.findings import Finding, Severity
from tests.doctor.moto_account import CONTAINER, DEFINITION, REGION, TARGET, client, config_of, refuse_stop

OTHER_REGION = "us-west-2"
ON_DEMAND = [{"capacityProvider": "FARGATE", "weight": 1}]
ELSEWHERE = {"region_name": OTHER_REGION, "subnets": ["subnet-9"], "security_groups": ["sg-9"]}


def ecs_at(target: Target) -> Any:
    return boto3.client("ecs", region_name=target.region)


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clusters jobs and spare, and jobs in another Region; the task definition in both Regions."""
    monkeypatch.setattr("moto.ecs.models.EC2ContainerServiceBackend.stop_task", refuse_stop)
    with mock_aws():
        for region, cluster in ((REGION, "jobs"), (REGION, "spare"), (OTHER_REGION, "jobs")):
            ecs = boto3.client("ecs", region_name=region)
            ecs.create_cluster(clusterName=cluster, capacityProviders=["FARGATE"])
            ecs.register_task_definition(**DEFINITION, containerDefinitions=[CONTAINER])
        yield


def findings_of(*variants: dict[str, Any], make_ecs_client: Any = ecs_at, **settings: str) -> list[Finding]:
    config = config_of(CAPACITY_FALLBACK=json.dumps(variants), **settings)
    return list(check_capacity_fallback(config, config.profile("default"), TARGET, make_ecs_client))


def errors(*variants: dict[str, Any], **settings: str) -> list[str]:
    return [
        f"{finding.check}: {finding.text}"
        for finding in findings_of(*variants, **settings)
        if finding.severity is Severity.ERROR
    ]


def test_a_variant_whose_cluster_has_everything_is_fine() -> None:
    variants = ({"capacity_provider_strategy": ON_DEMAND}, {"launch_type": "FARGATE", **ELSEWHERE})
    findings = findings_of(*variants)
    assert [finding for finding in findings if finding.severity in (Severity.ERROR, Severity.WARNING)] == []
    said = {(finding.subject, finding.text) for finding in findings if finding.check == "aws.capacity_fallback"}
    assert said == {
        ("default, variant 2", f"FARGATE in cluster jobs in {REGION}"),
        ("default, variant 3", f"launch type FARGATE in cluster jobs in {OTHER_REGION}"),
    }


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ({"capacity_provider_strategy": [{"capacityProvider": "FARGATE_SPOT"}]}, "no capacity provider FARGATE_SPOT"),
        ({"launch_type": "FARGATE", "cluster": "gone"}, "cluster gone in eu-central-1 does not exist"),
        ({"launch_type": "FARGATE", **ELSEWHERE, "cluster": "spare"}, "cluster spare in us-west-2 does not exist"),
    ],
)
def test_a_variant_needs_its_cluster_and_its_providers(variant: dict[str, Any], expected: str) -> None:
    (error,) = errors(variant)
    assert expected in error


def test_a_cluster_that_is_not_active_is_an_error() -> None:
    client("ecs").delete_cluster(cluster="spare")
    (error,) = errors({"launch_type": "FARGATE", "cluster": "spare"})
    assert "not ACTIVE" in error or "does not exist" in error


def test_both_kinds_of_providers_in_one_strategy_are_an_error() -> None:
    strategy = [*ON_DEMAND, {"capacityProvider": "mine"}]
    texts = errors({"capacity_provider_strategy": strategy})
    assert any("ECS refuses both in one" in text for text in texts)


def test_a_launch_type_of_instances_needs_instances_and_a_definition_for_them() -> None:
    findings = findings_of({"launch_type": "EC2"})
    warnings = [finding.text for finding in findings if finding.severity is Severity.WARNING]
    assert any("has no instances" in text for text in warnings)
    fargate_only = {**DEFINITION, "family": "narrow"}
    ecs = client("ecs")
    with Stubber(ecs) as stub:
        stub.add_response("describe_clusters", {"clusters": [{"status": "ACTIVE"}]})
        definition = {**fargate_only, "status": "ACTIVE", "compatibilities": ["FARGATE"], "revision": 1}
        definition["containerDefinitions"] = [{"name": "main"}]
        stub.add_response("describe_task_definition", {"taskDefinition": definition})
        found = findings_of({"launch_type": "EC2"}, make_ecs_client=lambda target: ecs)
    assert "not with launch_type EC2" in str([each for each in found if each.check == "aws.launch_type"])


@pytest.mark.parametrize("key", ["subnets", "security_groups"])
def test_another_region_needs_a_network_of_its_own(key: str) -> None:
    own = {name: value for name, value in ELSEWHERE.items() if name != key}
    (error,) = errors({"launch_type": "FARGATE", **own})
    assert error.startswith(f"aws.network: {key} are the queue's own")


def test_another_region_needs_the_task_definition() -> None:
    ecs = boto3.client("ecs", region_name=OTHER_REGION)
    ecs.deregister_task_definition(taskDefinition="job:1")
    variant = {"launch_type": "FARGATE", **ELSEWHERE}
    (error,) = errors(variant, TASK_DEFINITION="job:1")
    assert "job:1 is INACTIVE" in error
    (error,) = errors(variant, TASK_DEFINITION=f"arn:aws:ecs:{REGION}:123456789012:task-definition/job:1")
    assert f"is an ARN of {REGION}" in error


def test_a_right_that_is_denied_elsewhere_is_named_with_the_variant() -> None:
    ecs = boto3.client("ecs", region_name=OTHER_REGION)
    with Stubber(ecs) as stub:
        stub.add_client_error("describe_clusters", "AccessDeniedException", "no", 400)
        stub.add_client_error("describe_task_definition", "AccessDeniedException", "no", 400)
        stub.add_client_error("run_task", "AccessDeniedException", "no", 400)
        stub.add_response("describe_tasks", {"tasks": [], "failures": []})
        stub.add_response("list_tasks", {"taskArns": []})
        stub.add_client_error("stop_task", "InvalidParameterException", "The referenced task was not found.", 400)
        found = findings_of({"launch_type": "FARGATE", **ELSEWHERE}, make_ecs_client=lambda target: ecs)
        stub.assert_no_pending_responses()
    wrong = [(each.subject, each.check) for each in found if each.severity is Severity.ERROR]
    assert wrong == [("default, variant 2", "aws.permissions")]


def test_the_queues_own_cluster_and_region_are_not_asked_for_rights_again() -> None:
    findings = findings_of({"capacity_provider_strategy": ON_DEMAND})
    assert "aws.permissions" not in {finding.check for finding in findings}


def test_without_credentials_each_variant_says_so() -> None:
    def no_client(target: Target) -> Any:
        raise NoCredentialsError

    findings = findings_of({"launch_type": "FARGATE"}, make_ecs_client=no_client)
    assert [(finding.check, finding.severity) for finding in findings] == [("aws.credentials", Severity.ERROR)]


def test_events_of_another_region_are_a_note() -> None:
    url = {"EVENT_QUEUE_URL": f"https://sqs.{REGION}.amazonaws.com/123456789012/events"}
    elsewhere = {"launch_type": "FARGATE", **ELSEWHERE}
    assert "aws.event_queue" in {finding.check for finding in findings_of(elsewhere, **url)}
    assert "aws.event_queue" not in {finding.check for finding in findings_of({"launch_type": "FARGATE"}, **url)}


def test_a_stand_in_is_not_asked_for_its_providers() -> None:
    local = partial(boto3.client, "ecs", region_name=REGION, endpoint_url="http://127.0.0.1:1")
    ecs = local(aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(ecs) as stub:
        stub.add_response("describe_clusters", {"clusters": [{"status": "ACTIVE", "capacityProviders": []}]})
        stub.add_client_error("describe_task_definition", "AccessDeniedException", "no", 400)
        variant = {"capacity_provider_strategy": ON_DEMAND}
        found = findings_of(variant, make_ecs_client=lambda target: ecs)
    assert [each.severity for each in found if each.check == "aws.capacity_fallback"] == [Severity.INFO]
