"""For comparison: a Celery task that calls RunTask, the usual way without this project."""

from __future__ import annotations

import os

import boto3
from botocore.config import Config as BotoConfig
from celery import Celery

THREADS = 32

app = Celery("bench", broker=os.environ["BENCH_CELERY_BROKER"])
app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=1)
ecs = boto3.client("ecs", config=BotoConfig(max_pool_connections=THREADS), region_name="us-east-1")


@app.task(name="launch")  # type: ignore[untyped-decorator,unused-ignore]
def launch(command: list[str]) -> None:
    """Start one task, without record, result or poll."""
    override = {"containerOverrides": [{"name": "main", "command": command}]}
    ecs.run_task(cluster="local", taskDefinition="local", launchType="FARGATE", overrides=override)
