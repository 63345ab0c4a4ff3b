"""ecs-queue and the rules of AWS accept the files of conf/."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws

from ecs_queue.cli.worker import worker
from ecs_queue.config import load_config
from ecs_queue.ecs.awslogs import awslogs_options
from ecs_queue.monitoring.http_server import HttpServer, text_response

CONF = Path(__file__).parents[1] / "conf"
POLICIES = sorted(path.name for path in CONF.glob("iam-*-policy.json"))
REGION = "eu-west-1"


def filled_in(name: str) -> Any:
    """Return a file with its placeholders replaced by an account's values."""
    text = (CONF / name).read_text()
    values = {
        "ACCOUNT": "123456789012",
        "REGION": REGION,
        "BUCKET": "jobs-logs",
        "CLUSTER": "airflow",
        "FAMILY": "airflow-task",
        "LOG-GROUP": "/jobs",
    }
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return json.loads(text)


@pytest.fixture
def task_definition(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The task definition as ECS describes it after its registration."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        ecs = boto3.client("ecs", region_name=REGION)
        ecs.register_task_definition(**filled_in("airflow-task-definition.json"))
        yield ecs.describe_task_definition(taskDefinition="airflow-task")["taskDefinition"]


def test_the_airflow_configuration_is_one_that_ecs_queue_takes() -> None:
    config = load_config(environ={"ECS_QUEUE_CONFIG": str(CONF / "airflow.cfg")})
    assert config.namespace == "airflow"
    assert config.base_profile.launch_type == "FARGATE"
    assert set(config.named_profiles) == {"spot"}


def test_the_airflow_configuration_and_the_task_definition_name_the_same(task_definition: Any) -> None:
    airflow = ConfigParser(interpolation=None)
    airflow.read(CONF / "airflow.cfg")
    profile = airflow["aws_ecs_executor"]
    assert profile["task_definition"] == task_definition["family"]
    assert profile["launch_type"] in task_definition["requiresCompatibilities"]
    (container,) = task_definition["containerDefinitions"]
    assert profile["container_name"] == container["name"]
    environment = {entry["name"]: entry["value"] for entry in container["environment"]}
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == airflow["core"]["execution_api_server_url"]


def test_the_log_of_the_task_definition_is_one_that_the_log_view_finds(task_definition: Any) -> None:
    options = awslogs_options(task_definition, "main")
    assert isinstance(options, dict), options
    allowed = str(filled_in("iam-api-server-policy.json"))
    assert f"log-group:{options['awslogs-group']}:log-stream:{options['awslogs-stream-prefix']}/*" in allowed
    assert f"log-group:{options['awslogs-group']}:*" in str(filled_in("iam-execution-role-policy.json"))


@pytest.mark.parametrize("name", [name for name in POLICIES if "trust" not in name])
def test_a_policy_is_one_that_iam_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    document = filled_in(name)
    with mock_aws():
        boto3.client("iam").create_policy(PolicyName="one", PolicyDocument=json.dumps(document))
    for statement in document["Statement"]:
        assert "*" not in str(statement["Action"])  # each right by name


def test_the_worker_may_do_what_it_does() -> None:
    actions: set[str] = set()
    for statement in filled_in("iam-worker-policy.json")["Statement"]:
        named = statement["Action"]
        actions |= {named} if isinstance(named, str) else set(named)
    assert actions >= {
        "ecs:RunTask",
        "ecs:TagResource",
        "ecs:DescribeTasks",
        "ecs:StopTask",
        "ecs:ListTasks",
        "ecs:DescribeClusters",
        "iam:PassRole",
    }


def test_the_values_of_the_configuration_are_all_that_the_policy_for_secrets_allows_to_read() -> None:
    document = filled_in("iam-secrets-policy.json")
    actions = [statement["Action"] for statement in document["Statement"]]
    assert actions == ["ssm:GetParameter", "secretsmanager:GetSecretValue", "kms:Decrypt"]
    resources = [statement["Resource"] for statement in document["Statement"]]
    assert all(
        resource.endswith((":parameter/ecs-queue/*", ":secret:ecs-queue/*", ":key/KEY_ID")) for resource in resources
    )
    assert "kms:ViaService" in str(document["Statement"][2]["Condition"])


def _manifests() -> dict[str, Any]:
    """Return the Kubernetes manifests by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((CONF / "kubernetes-worker.yaml").read_text())}


def _worker_commands() -> list[list[str]]:
    """Return the words behind `ecs-queue` with which each file starts a worker."""
    image = re.findall(r"^CMD (\[.*\])$", (CONF / "worker.Dockerfile").read_text(), re.MULTILINE)
    unit = re.findall(r"^ExecStart=\S+ (.*)$", (CONF / "ecs-queue-worker@.service").read_text(), re.MULTILINE)
    (container,) = _manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return [json.loads(image[-1]), unit[0].replace("%i", "9464").split(), container["args"]]


def test_a_worker_takes_the_options_with_which_the_files_start_it() -> None:
    for name, *arguments in _worker_commands():
        context = worker.make_context(name, arguments)
        assert (context.params["metrics_port"], context.params["log_format"]) == (9464, "json")


def _compose_services() -> Any:
    return yaml.safe_load((CONF / "compose.yaml").read_text())["services"]


def _health_checks() -> list[list[str]]:
    """Return the commands with which the files ask whether a process is healthy."""
    image = re.findall(r"^ +CMD (\[.*\])$", (CONF / "worker.Dockerfile").read_text(), re.MULTILINE)
    (container,) = _template()["WorkerDefinition"]["ContainerDefinitions"]
    composed = [service["healthcheck"]["test"][1:] for service in _compose_services().values()]
    return [json.loads(image[-1]), container["HealthCheck"]["Command"][1:], *composed]


def test_a_health_check_does_not_ask_a_proxy() -> None:
    """Docker hands the proxies of its configuration to every container."""
    statuses = [200]
    routes = dict.fromkeys(("/", "/healthz", "/readyz"), lambda query: text_response(statuses[-1], "ok"))
    server = HttpServer("127.0.0.1", 0, routes)
    server.start()
    checks = _health_checks()
    found = {check[2] for check in checks if check[0] == "python"}
    scripts = [re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{server.port}", script) for script in found]

    def run(script: str) -> int:
        command = (sys.executable, "-c", script)
        return subprocess.run(command, env={"http_proxy": "http://127.0.0.1:9"}, check=False).returncode

    assert [run(script) for script in scripts] == [0, 0, 0, 0, 0]
    statuses.append(503)
    assert run(scripts[0]) == 1
    server.stop()
    assert server.join(10)
    assert all(check[1:3] == ["-Y", "off"] for check in checks if check[0] == "wget")


def test_one_service_of_the_local_stack_builds_the_image_that_all_share() -> None:
    """Docker builds the image of each service at the same time, and only one of them gets the name."""
    services = _compose_services()
    built = [name for name, service in services.items() if "build" in service]
    assert built == ["worker-1"]
    assert {services[name]["image"] for name in ("local-ecs", "worker-1", "worker-2", "web")} == {"ecs-queue-local:1"}


def test_the_configuration_of_the_manifests_is_one_that_ecs_queue_takes(tmp_path: Path) -> None:
    manifests = _manifests()
    text = manifests["ConfigMap"]["data"]["ecs_queue.cfg"]
    (tmp_path / "broker_url").write_text("rediss://worker:hunter2@redis.internal:6379/0")
    path = tmp_path / "ecs_queue.cfg"
    path.write_text(text.replace("/etc/ecs-queue/server/", f"{tmp_path}/").replace("REGION", REGION))
    config = load_config(environ={"ECS_QUEUE_CONFIG": str(path)})
    assert config.broker_url.startswith("rediss://worker:")
    assert config.profile("default").subnets == ("subnet-0a1b", "subnet-2c3d")
    scaled = yaml.safe_load((CONF / "keda-scaled-object.yaml").read_text())
    assert scaled["spec"]["scaleTargetRef"]["name"] == manifests["Deployment"]["metadata"]["name"]
    assert (
        f"http://{manifests['Service']['metadata']['name']}:9464/" in scaled["spec"]["triggers"][0]["metadata"]["url"]
    )


class _TemplateLoader(yaml.SafeLoader):
    """Reads CloudFormation's tags as the text or list behind them."""


def _read_tagged(loader: _TemplateLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    return loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else suffix


_TemplateLoader.add_multi_constructor("!", _read_tagged)


def _template() -> Any:
    resources = yaml.load((CONF / "cloudformation.yaml").read_text(), _TemplateLoader)["Resources"]
    return {name: resource.get("Properties", {}) for name, resource in resources.items()}


def test_the_templates_worker_has_the_permissions_of_the_policies_and_starts() -> None:
    template = _template()
    (policy,) = template["WorkerRole"]["Policies"]
    expected = filled_in("iam-worker-policy.json")["Statement"] + filled_in("iam-events-policy.json")["Statement"]

    def actions(statements: Any) -> dict[str, Any]:
        return {each["Sid"]: (each["Effect"], each["Action"], sorted(each.get("Condition", ()))) for each in statements}

    assert actions(policy["PolicyDocument"]["Statement"]) == actions(expected)
    (container,) = template["WorkerDefinition"]["ContainerDefinitions"]
    name, *arguments = container["Command"]
    assert worker.make_context(name, arguments).params["metrics_port"] == 9464
    environ = {each["Name"]: str(each["Value"]) for each in container["Environment"]}
    environ |= {each["Name"]: "rediss://:word@host:6379/0" for each in container["Secrets"]}
    environ["AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS"] = "subnet-0a1b"
    environ["AIRFLOW__ECS_QUEUE__EVENT_QUEUE_URL"] = "https://sqs.eu-west-1.amazonaws.com/123456789012/events"
    config = load_config(environ=environ)
    assert (config.durability, config.cloudwatch_metrics) == ("replica", True)
    assert template["WorkerScalingPolicy"]["TargetTrackingScalingPolicyConfiguration"].keys() == (
        filled_in("autoscaling-policy.json")["TargetTrackingScalingPolicyConfiguration"].keys()
    )
    rule, queue_policy = template["EventRule"]["EventPattern"], template["EventQueuePolicy"]["PolicyDocument"]
    assert rule.keys() == filled_in("event-rule.json").keys()
    assert actions(queue_policy["Statement"]) == actions(filled_in("event-queue-policy.json")["Statement"])
