"""The environment under which ecs-queue and boto3 use the local stack."""

from __future__ import annotations

from ecs_queue.local.ecs.options import LocalEcsOptions


def local_environment(endpoint_url: str, redis_url: str, options: LocalEcsOptions | None = None) -> dict[str, str]:
    """The variables to export: ECS calls go to ``endpoint_url``, messages to ``redis_url``.

    The credentials are placeholders, so that nothing here can reach a real account; the local ECS ignores
    them.
    """
    chosen = options or LocalEcsOptions()
    return {
        "AWS_ENDPOINT_URL_ECS": endpoint_url,
        "AWS_REGION": chosen.region,
        "AWS_DEFAULT_REGION": chosen.region,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AIRFLOW__ECS_QUEUE__BROKER_URL": redis_url,
        "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": chosen.clusters[-1],
        "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": chosen.task_definition,
        "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": chosen.container_name,
        "AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE": "FARGATE",
        "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-local",
    }
