"""A queue's configuration and its task definition, for moto's account."""

from __future__ import annotations

from typing import Any

import boto3
from moto.core.exceptions import JsonRESTError

from ecs_queue.config import Config, load_config
from ecs_queue.ecs.clients import Target

REGION = "eu-central-1"
SECTION = "AIRFLOW__AWS_ECS_EXECUTOR__"
SETTINGS = {
    "REGION_NAME": REGION,
    "CLUSTER": "jobs",
    "TASK_DEFINITION": "job",
    "CONTAINER_NAME": "main",
    "SUBNETS": "subnet-1",
    "SECURITY_GROUPS": "sg-1",
    "CONN_ID": "",
}
TARGET = Target(REGION, None, None, "jobs")
DEFINITION: dict[str, Any] = {
    "family": "job",
    "networkMode": "awsvpc",
    "requiresCompatibilities": ["FARGATE"],
    "cpu": "256",
    "memory": "512",
}
CONTAINER: dict[str, Any] = {
    "name": "main",
    "image": "busybox",
    "memory": 256,
    "logConfiguration": {
        "logDriver": "awslogs",
        "options": {"awslogs-group": "/jobs", "awslogs-stream-prefix": "ecs", "awslogs-region": REGION},
    },
}


def config_of(**settings: str) -> Config:
    merged = {**SETTINGS, **settings}
    queue = {name: value for name, value in merged.items() if name.startswith("AIRFLOW__")}
    own = {SECTION + name: value for name, value in merged.items() if name not in queue}
    return load_config(environ={**own, **queue})


def client(service: str, **keys: str) -> Any:
    return boto3.client(service, region_name=REGION, **keys)


def refuse_stop(*_arguments: object, **_keywords: object) -> None:
    """In place of moto's StopTask, which breaks at an unknown task."""
    raise JsonRESTError("InvalidParameterException", "The referenced task was not found.")
