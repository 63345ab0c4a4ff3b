"""Tasks that ECS has forgotten, over real workers and a local ECS with a short retention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.local.ecs import LocalEcs, local_environment
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.states import State
from tests.processes import QUICK_SETTINGS, merged_environ, run_worker
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]


def _ecs(local: LocalEcs) -> Any:
    return boto3.client(
        "ecs",
        endpoint_url=local.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )


def _launch(queue: EcsQueue, environ: dict[str, str], log: Path) -> str:
    """Launch a task that ends while no worker polls it. Return its ARN."""
    queue.submit(["sleep", "1"], id="a", relaunch="any_failure")
    with run_worker(environ, log) as process:
        wait_until(lambda: queue.status("a").state is State.LAUNCHED, "it is launched")
        process.kill()
        process.wait()
    return queue.status("a").arn


def test_a_task_that_ecs_has_forgotten_ends_unknown_and_is_not_run_again(
    own_redis: RedisServer, forgetful_ecs: LocalEcs, tmp_path: Path
) -> None:
    environ = merged_environ(QUICK_SETTINGS, local_environment(forgetful_ecs.endpoint_url, own_redis.url))
    ecs = _ecs(forgetful_ecs)
    with EcsQueue.from_config(environ=environ) as queue:
        arn = _launch(queue, environ, tmp_path / "first.log")
        wait_until(lambda: ecs.describe_tasks(cluster="local", tasks=[arn])["failures"], "ECS has forgotten the task")
        with run_worker(environ, tmp_path / "second.log"):
            result = queue.handle("a").result(timeout=60.0)

    assert (result.state, result.attempts, result.task_arn) == ("UNKNOWN", 1, arn)
    assert "its end was not observed: look at its logs" in result.reason


def test_a_task_whose_cluster_was_deleted_ends_unknown_and_says_so(
    own_redis: RedisServer, forgetful_ecs: LocalEcs, tmp_path: Path
) -> None:
    quick = {**QUICK_SETTINGS, "AIRFLOW__ECS_QUEUE__SETTLE_SECONDS": "1"}
    environ = merged_environ(quick, local_environment(forgetful_ecs.endpoint_url, own_redis.url))
    ecs = _ecs(forgetful_ecs)
    with EcsQueue.from_config(environ=environ) as queue:
        arn = _launch(queue, environ, tmp_path / "first.log")
        wait_until(lambda: ecs.describe_tasks(cluster="local", tasks=[arn])["failures"], "the task has ended")
        ecs.delete_cluster(cluster="local")
        with run_worker(environ, tmp_path / "second.log"):
            wait_until(
                lambda: any("ClusterNotFound" in info.health for info in queue.ledger.list_workers()), "health says so"
            )
            result = queue.handle("a").result(timeout=60.0)

    assert (result.state, result.attempts, result.task_arn) == ("UNKNOWN", 1, arn)
    assert "ClusterNotFound" in result.reason
