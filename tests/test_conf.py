"""ecs-queue and the rules of AWS accept the files of conf/."""

from __future__ import annotations

import json
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from ecs_queue.config import load_config
from ecs_queue.ecs.awslogs import awslogs_options

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
