"""Against moto's ECS, which this project did not write. It ends every task with exit code 0 after some polls."""

from __future__ import annotations

import boto3
import pytest

from ecs_queue.broker import open_broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.ledger import open_ledger
from ecs_queue.local.ecs import local_environment
from ecs_queue.worker.worker import Worker

pytestmark = [pytest.mark.server, pytest.mark.slow]

TASKS = 20


def prepare(moto_url: str) -> None:
    ecs = boto3.client("ecs", endpoint_url=moto_url)
    ecs.create_cluster(clusterName="local")
    container = {"name": "main", "image": "busybox", "memory": 128, "essential": True}
    ecs.register_task_definition(family="local", containerDefinitions=[container])


def test_the_main_job_runs_on_motos_ecs(moto_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = local_environment(moto_url, redis_url)
    environ["AIRFLOW__AWS_ECS_EXECUTOR__SECURITY_GROUPS"] = "sg-local"  # moto fails without any
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    prepare(moto_url)
    config = load_config()
    broker, ledger = open_broker(config), open_ledger(config)
    worker = Worker(config, broker, ledger)
    worker.check()
    worker.start()
    try:
        with EcsQueue.from_config() as queue:
            handles = queue.submit_many({"command": ["true"]} for _ in range(TASKS))
            results = list(queue.as_completed(handles, timeout=60))
    finally:
        worker.stop()
        assert worker.join()
        broker.close()
        ledger.close()
    assert [(r.state, r.exit_code, r.attempts) for r in results] == [("SUCCESS", 0, 1)] * TASKS
    assert len({r.task_arn for r in results}) == TASKS
