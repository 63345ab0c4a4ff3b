"""What the doctor says of an AWS account, on moto's; what moto has not, on botocore's own stub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from botocore.stub import Stubber
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count

from ecs_queue.config import Config
from ecs_queue.doctor.account import check_account, check_rate_limits
from ecs_queue.doctor.aws_call import is_not_aws
from ecs_queue.doctor.permissions import check_permissions
from ecs_queue.findings import Finding, Reporter, Severity
from tests.doctor.moto_account import CONTAINER, DEFINITION, TARGET, client, config_of, refuse_stop


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster, a task definition and its log group. moto breaks at a StopTask of an unknown task; AWS refuses it."""
    monkeypatch.setattr("moto.ecs.models.EC2ContainerServiceBackend.stop_task", refuse_stop)
    with mock_aws():
        ecs = client("ecs")
        ecs.create_cluster(clusterName="jobs")
        ecs.register_task_definition(**DEFINITION, containerDefinitions=[CONTAINER])
        client("logs").create_log_group(logGroupName="/jobs")
        yield


def found(config: Config) -> dict[str, list[Finding]]:
    by_check: dict[str, list[Finding]] = {}
    for finding in check_account(config, config.profile("default"), TARGET, client):
        by_check.setdefault(finding.check, []).append(finding)
    return by_check


def levels(findings: dict[str, list[Finding]], check: str) -> list[Severity]:
    return [finding.severity for finding in findings.get(check, ())]


@pytest.mark.usefixtures("account")
def test_a_complete_account_has_no_errors_and_is_not_changed() -> None:
    findings = found(config_of())
    flat = [finding for group in findings.values() for finding in group]
    assert [finding for finding in flat if finding.severity in (Severity.ERROR, Severity.WARNING)] == []
    assert "123456789012" in findings["aws.identity"][0].text
    assert "which exists" in findings["aws.log_group"][0].text
    assert "ecs:RunTask, ecs:DescribeTasks, ecs:ListTasks, ecs:StopTask" in findings["aws.permissions"][0].text
    assert client("ecs").list_tasks(cluster="jobs")["taskArns"] == []


@pytest.mark.usefixtures("account")
def test_a_missing_cluster_is_an_error_and_ends_the_checks() -> None:
    config = config_of(CLUSTER="nope")
    target = replace(TARGET, cluster="nope")
    findings = list(check_account(config, config.profile("default"), target, client))
    assert findings[-1].check == "aws.cluster"
    assert (findings[-1].severity, "does not exist" in findings[-1].text) == (Severity.ERROR, True)


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("settings", "default", "severity", "words"),
    [
        ({}, [], Severity.OK, "the cluster has no default strategy: tasks run on FARGATE"),
        ({}, ["FARGATE_SPOT"], Severity.OK, "tasks run on the cluster's default strategy (FARGATE_SPOT)"),
        ({"CAPACITY_PROVIDER_STRATEGY": "[]"}, [], Severity.WARNING, "has no default strategy"),
        ({"CAPACITY_PROVIDER_STRATEGY": "[]"}, ["FARGATE"], Severity.OK, "default strategy (FARGATE)"),
        ({"LAUNCH_TYPE": "FARGATE"}, ["FARGATE_SPOT"], None, ""),
    ],
)
def test_where_a_task_runs_whose_launch_type_is_left_out(
    settings: dict[str, str], default: list[str], severity: Severity | None, words: str
) -> None:
    strategy = [{"capacityProvider": name, "weight": 1} for name in default]
    client("ecs").put_cluster_capacity_providers(
        cluster="jobs", capacityProviders=default, defaultCapacityProviderStrategy=strategy
    )
    findings = found(config_of(**settings)).get("aws.capacity", [])
    assert [finding.severity for finding in findings] == ([severity] if severity else [])
    assert all(words in finding.text for finding in findings)


@pytest.mark.usefixtures("account")
def test_a_missing_task_definition_is_an_error() -> None:
    findings = found(config_of(TASK_DEFINITION="nope"))
    assert levels(findings, "aws.task_definition") == [Severity.ERROR]
    (finding,) = findings["aws.task_definition"]
    assert f"{finding.text} {finding.advice}".count("register it") == 1  # the advice is given once
    assert "aws.container" not in findings


@pytest.mark.usefixtures("account")
def test_an_inactive_task_definition_is_an_error() -> None:
    client("ecs").deregister_task_definition(taskDefinition="job:1")
    assert levels(found(config_of(TASK_DEFINITION="job:1")), "aws.task_definition") == [Severity.ERROR]


@pytest.mark.usefixtures("account")
def test_a_container_that_is_not_in_the_definition_is_an_error() -> None:
    (finding,) = found(config_of(CONTAINER_NAME="worker"))["aws.container"]
    assert (finding.severity, "only main" in finding.text) == (Severity.ERROR, True)


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("container", "check", "expected"),
    [
        ({"entryPoint": ["sh", "-c"]}, "aws.entry_point", [Severity.WARNING]),
        ({"entryPoint": ["/bin/bash", "-lc", "python serve.py"]}, "aws.entry_point", [Severity.WARNING]),
        ({"entryPoint": ["sh", "-ec", 'setup; exec "$@"', "sh"]}, "aws.entry_point", [Severity.INFO]),
        ({"entryPoint": ["/tini", "--"]}, "aws.entry_point", [Severity.INFO]),
        ({"entryPoint": ["sh", "/entrypoint.sh"]}, "aws.entry_point", [Severity.INFO]),
        ({"entryPoint": []}, "aws.entry_point", []),
        ({"essential": False}, "aws.essential", [Severity.WARNING]),
        ({"essential": True}, "aws.essential", []),
    ],
)
def test_a_main_container_that_swallows_the_command_or_is_not_essential_is_a_warning(
    container: dict[str, Any], check: str, expected: list[Severity]
) -> None:
    containers = [CONTAINER | container, {"name": "log", "image": "log", "memory": 64}]
    client("ecs").register_task_definition(**DEFINITION, containerDefinitions=containers)
    assert levels(found(config_of()), check) == expected


@pytest.mark.usefixtures("account")
def test_only_a_warm_queue_may_not_have_a_restart_policy() -> None:
    containers = [CONTAINER | {"restartPolicy": {"enabled": True}}]
    client("ecs").register_task_definition(**DEFINITION, containerDefinitions=containers)
    assert "aws.restart_policy" not in found(config_of())
    findings = found(config_of(WARM_SECONDS="60"))
    assert levels(findings, "aws.restart_policy") == levels(findings, "aws.runner_secrets") == [Severity.ERROR]
    assert "aws.restart_policy" not in found(config_of(WARM_SECONDS="60", CONTAINER_NAME="other"))


@pytest.mark.usefixtures("account")
def test_a_definition_for_ec2_alone_is_an_error_on_fargate() -> None:
    ecs = client("ecs")
    given = {"family": "ec2job", "networkMode": "bridge", "requiresCompatibilities": ["EC2"]}
    ecs.register_task_definition(**given, containerDefinitions=[CONTAINER])
    findings = found(config_of(TASK_DEFINITION="ec2job"))
    assert levels(findings, "aws.launch_type") == [Severity.ERROR]
    assert levels(findings, "aws.network") == [Severity.ERROR]
    on_ec2 = found(config_of(TASK_DEFINITION="ec2job", LAUNCH_TYPE="EC2"))
    assert "aws.launch_type" not in on_ec2
    assert "subnets are set" in on_ec2["aws.network"][0].text


@pytest.mark.usefixtures("account")
def test_capacity_providers_decide_what_a_definition_must_be_compatible_with() -> None:
    ecs = client("ecs")
    given = {"family": "ec2job", "networkMode": "awsvpc", "requiresCompatibilities": ["EC2"]}
    ecs.register_task_definition(**given, containerDefinitions=[CONTAINER])
    spot = json.dumps([{"capacityProvider": "FARGATE_SPOT"}])
    instances = json.dumps([{"capacityProvider": "mine"}])
    on_spot = found(config_of(TASK_DEFINITION="ec2job", CAPACITY_PROVIDER_STRATEGY=spot))
    assert "that of its capacity providers" in on_spot["aws.launch_type"][0].text
    assert "aws.launch_type" not in found(config_of(TASK_DEFINITION="ec2job", CAPACITY_PROVIDER_STRATEGY=instances))
    assert "aws.launch_type" not in found(config_of(CAPACITY_PROVIDER_STRATEGY=spot))


@pytest.mark.usefixtures("account")
def test_a_provider_that_the_cluster_does_not_have_is_an_error() -> None:
    spot = json.dumps([{"capacityProvider": "FARGATE_SPOT"}])
    attach = partial(client("ecs").put_cluster_capacity_providers, cluster="jobs", defaultCapacityProviderStrategy=[])
    attach(capacityProviders=["FARGATE"])
    (finding,) = found(config_of(CAPACITY_PROVIDER_STRATEGY=spot))["aws.capacity"]
    assert (finding.severity, "no capacity provider FARGATE_SPOT" in finding.text) == (Severity.ERROR, True)
    attach(capacityProviders=["FARGATE_SPOT"])
    assert "aws.capacity" not in found(config_of(CAPACITY_PROVIDER_STRATEGY=spot))


@pytest.mark.usefixtures("account")
def test_fargate_spot_runs_no_windows() -> None:
    windows = {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE", "cpuArchitecture": "X86_64"}
    client("ecs").register_task_definition(**DEFINITION, containerDefinitions=[CONTAINER], runtimePlatform=windows)
    spot = json.dumps([{"capacityProvider": "FARGATE_SPOT"}])
    assert "runs Linux only" in found(config_of(CAPACITY_PROVIDER_STRATEGY=spot))["aws.launch_type"][0].text
    assert "aws.launch_type" not in found(config_of())


@pytest.mark.usefixtures("account")
def test_a_definition_with_a_network_of_its_own_needs_subnets_on_instances_too() -> None:
    both = {**DEFINITION, "requiresCompatibilities": ["EC2", "FARGATE"]}
    client("ecs").register_task_definition(**both, containerDefinitions=[CONTAINER])
    assert "no subnets" in found(config_of(LAUNCH_TYPE="EC2", SUBNETS="", SECURITY_GROUPS=""))["aws.network"][0].text
    assert "aws.network" not in found(config_of(LAUNCH_TYPE="EC2"))


@pytest.mark.usefixtures("account")
def test_a_missing_log_group_is_an_error_unless_the_driver_creates_it() -> None:
    client("logs").delete_log_group(logGroupName="/jobs")
    assert levels(found(config_of()), "aws.log_group") == [Severity.ERROR]
    options = {**CONTAINER["logConfiguration"]["options"], "awslogs-create-group": "true"}
    making = {**CONTAINER, "logConfiguration": {"logDriver": "awslogs", "options": options}}
    client("ecs").register_task_definition(**DEFINITION, containerDefinitions=[making])
    (finding,) = found(config_of())["aws.log_group"]
    assert (finding.severity, "was not checked" in finding.text) == (Severity.INFO, True)


@pytest.mark.usefixtures("account")
def test_a_container_without_awslogs_is_an_info() -> None:
    plain = {key: value for key, value in CONTAINER.items() if key != "logConfiguration"}
    client("ecs").register_task_definition(**DEFINITION, containerDefinitions=[plain])
    assert levels(found(config_of()), "aws.log_group") == [Severity.INFO]


@mock_aws
def test_each_denied_permission_is_named() -> None:
    keys = user_who_may("ecs:DescribeTasks", "ecs:ListTasks")
    profile = config_of().profile("default")

    @set_initial_no_auth_action_count(0)
    def denied() -> list[Finding]:
        ecs = client("ecs", **keys)
        return list(check_permissions(Reporter("default"), profile, TARGET, ecs))

    findings = denied()
    wrong = [finding.text.split()[0] for finding in findings if finding.severity is Severity.ERROR]
    assert wrong == ["ecs:RunTask", "ecs:StopTask"]
    assert any("ecs:DescribeTasks, ecs:ListTasks" in finding.text for finding in findings)


def test_the_right_to_tag_is_checked_where_the_profile_has_tags() -> None:
    """AWS checks it for a call with tags, apart from RunTask itself."""
    denied = "User: u is not authorized to perform: ecs:TagResource on resource: x"
    for profile, asked in (
        (config_of(tag_labels="team").profile("default"), True),
        (config_of(run_task_kwargs='{"tags": [{"key": "a", "value": "b"}]}').profile("default"), True),
        (config_of().profile("default"), False),
    ):
        ecs = client("ecs")
        with Stubber(ecs) as stub:
            stub.add_client_error("run_task", "ClientException", "TaskDefinition not found.", 400)
            stub.add_response("describe_tasks", {"tasks": [], "failures": []})
            stub.add_response("list_tasks", {"taskArns": []})
            stub.add_client_error("stop_task", "InvalidParameterException", "The referenced task was not found.", 400)
            if asked:
                stub.add_client_error("run_task", "AccessDeniedException", denied, 400)
            findings = list(check_permissions(Reporter("default"), profile, TARGET, ecs))
            stub.assert_no_pending_responses()
        wrong = [finding.text.split()[0] for finding in findings if finding.severity is Severity.ERROR]
        assert wrong == (["ecs:TagResource"] if asked else [])


def user_who_may(*actions: str) -> dict[str, str]:
    iam = client("iam")
    client("ecs").create_cluster(clusterName="jobs")
    iam.create_user(UserName="worker")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}
    iam.put_user_policy(UserName="worker", PolicyName="p", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="worker")["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def test_what_the_doctor_may_not_read_is_an_info() -> None:
    """The worker's policy has no right to look at task definitions."""
    clients = {name: client(name) for name in ("ecs", "sts", "logs", "service-quotas")}
    with Stubber(clients["ecs"]) as ecs, Stubber(clients["sts"]) as sts, Stubber(clients["service-quotas"]) as quotas:
        sts.add_response("get_caller_identity", {"Arn": "arn:aws:iam::1:role/r", "Account": "1"})
        ecs.add_client_error("describe_clusters", "AccessDeniedException", "no", 400)
        ecs.add_client_error("describe_task_definition", "AccessDeniedException", "no", 400)
        ecs.add_client_error("run_task", "ClientException", "TaskDefinition not found.", 400)
        ecs.add_response("describe_tasks", {"tasks": [], "failures": []})
        ecs.add_response("list_tasks", {"taskArns": []})
        ecs.add_client_error("stop_task", "InvalidParameterException", "The referenced task was not found.", 400)
        quotas.add_response("get_service_quota", {"Quota": {"Value": 6.0}})
        config = config_of()
        findings = list(check_account(config, config.profile("default"), TARGET, clients.__getitem__))
    by_check = {finding.check: finding for finding in findings}
    assert by_check["aws.cluster"].severity is Severity.INFO
    assert by_check["aws.task_definition"].severity is Severity.INFO
    assert "6 vCPUs" in by_check["aws.vcpu_quota"].text
    assert not [finding for finding in findings if finding.severity is Severity.ERROR]


def test_expired_credentials_are_an_error() -> None:
    clients = {name: client(name) for name in ("ecs", "sts", "logs", "service-quotas")}
    with Stubber(clients["ecs"]) as ecs, Stubber(clients["sts"]) as sts:
        for stub, call in ((sts, "get_caller_identity"), (ecs, "describe_clusters")):
            stub.add_client_error(call, "ExpiredTokenException", "The security token is expired", 400)
        config = config_of()
        findings = list(check_account(config, config.profile("default"), TARGET, clients.__getitem__))
    assert [(finding.check, finding.severity) for finding in findings] == [
        ("aws.identity", Severity.ERROR),
        ("aws.cluster", Severity.ERROR),
    ]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [Severity.OK, Severity.OK]),
        ({"AIRFLOW__ECS_QUEUE__RUN_TASK_RATE": "30"}, [Severity.WARNING, Severity.OK]),
        ({"AIRFLOW__ECS_QUEUE__RUN_TASK_RATE": "30", "LAUNCH_TYPE": "EC2"}, [Severity.OK, Severity.OK]),
        ({"LAUNCH_RATE": "50"}, [Severity.OK, Severity.OK, Severity.WARNING]),
        ({"LAUNCH_RATE": "50", "AIRFLOW__ECS_QUEUE__RUN_TASK_RATE": "0"}, [Severity.WARNING, Severity.OK]),
        ({"LAUNCH_RATE": "5"}, [Severity.OK, Severity.OK]),
        ({"AIRFLOW__ECS_QUEUE__DESCRIBE_TASKS_BURST": "500"}, [Severity.OK, Severity.WARNING]),
        ({"AIRFLOW__ECS_QUEUE__DESCRIBE_TASKS_RATE": "0"}, [Severity.OK, Severity.WARNING]),
    ],
)
def test_rates_above_awss_quotas_are_warnings(settings: dict[str, str], expected: list[Severity]) -> None:
    config = config_of(**settings)
    findings = check_rate_limits(Reporter("default"), config, config.profile("default"))
    assert [finding.severity for finding in findings] == expected


@pytest.mark.parametrize(
    ("settings", "checks"),
    [
        ({}, {"aws.identity", "aws.log_group", "aws.vcpu_quota"}),
        ({"LAUNCH_TYPE": "EC2"}, {"aws.identity", "aws.log_group", "aws.capacity"}),
        (
            {"CAPACITY_PROVIDER_STRATEGY": '[{"capacityProvider": "FARGATE_SPOT"}]'},
            {"aws.identity", "aws.log_group", "aws.capacity", "aws.vcpu_quota"},
        ),
    ],
)
def test_what_a_stand_in_for_aws_does_not_have_is_said_to_be_unchecked(
    settings: dict[str, str], checks: set[str]
) -> None:
    url = "http://127.0.0.1:1"
    ecs = client("ecs", endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="x")
    config = config_of(**settings)
    with Stubber(ecs) as stub:
        stub.add_response("describe_clusters", {"clusters": [{"status": "ACTIVE", "capacityProviders": []}]})
        definition = {**DEFINITION, "containerDefinitions": [CONTAINER], "status": "ACTIVE"}
        stub.add_response("describe_task_definition", {"taskDefinition": definition})
        stub.add_client_error("run_task", "ClientException", "TaskDefinition not found.", 400)
        stub.add_response("describe_tasks", {"tasks": [], "failures": []})
        stub.add_response("list_tasks", {"taskArns": []})
        stub.add_client_error("stop_task", "InvalidParameterException", "The referenced task was not found.", 400)
        findings = list(check_account(config, config.profile("default"), TARGET, {"ecs": ecs}.__getitem__))

    unchecked = [finding for finding in findings if finding.text.endswith(f"{url} is not AWS")]
    assert all("not checked" in finding.text for finding in unchecked)
    assert {finding.check for finding in unchecked} == checks
    assert {finding.severity for finding in unchecked} == {Severity.INFO}
    assert not checks & {finding.check for finding in findings if finding.severity is Severity.OK}


def test_stand_ins_are_not_checked_as_aws() -> None:
    assert not is_not_aws("https://ecs.eu-central-1.amazonaws.com")
    assert not is_not_aws("https://vpce-0a.ecs.eu-central-1.vpce.amazonaws.com")
    assert is_not_aws("http://127.0.0.1:4566")
    assert is_not_aws("http://localstack:4566")
