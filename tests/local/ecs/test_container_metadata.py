"""Container metadata version 4: the members and types that AWS documents for tasks on Fargate, and who can read it."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.local.ecs.checked_client import ManualRunner, describe_task, wait_for_status
from tests.local.ecs.conftest import StartEcs

#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate-response.html
TASK = {
    **dict.fromkeys(("Cluster", "TaskARN", "Family", "Revision", "DesiredStatus", "KnownStatus"), str),
    **dict.fromkeys(("PullStartedAt", "PullStoppedAt", "AvailabilityZone", "LaunchType"), str),
    "Limits": dict,
    "Containers": list,
}
CONTAINER = {
    **dict.fromkeys(("DockerId", "Name", "DockerName", "Image", "ImageID", "DesiredStatus", "KnownStatus"), str),
    **dict.fromkeys(("CreatedAt", "StartedAt", "Type", "LogDriver", "ContainerARN"), str),
    **dict.fromkeys(("Labels", "Limits", "LogOptions"), dict),
    "Networks": list,
}
LOGS = {"logDriver": "awslogs", "options": {"awslogs-group": "/ecs/a", "awslogs-stream-prefix": "ecs"}}
MAIN = {"name": "main", "image": "i:1", "command": ["true"], "cpu": 10, "memory": 128, "logConfiguration": LOGS}


def _get(url: str, **headers: str) -> tuple[int, Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("GET", parts.path, headers=headers)
        response = connection.getresponse()
        body = response.read().decode()
        return response.status, json.loads(body) if response.status == 200 else body
    finally:
        connection.close()


def _types(page: dict[str, Any]) -> dict[str, type]:
    return {name: type(value) for name, value in page.items()}


def test_a_running_container_reads_what_aws_documents(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner)
    client.register_task_definition(
        family="web", cpu="512", memory="1 GB", containerDefinitions=[MAIN, {"name": "proxy", "image": "p"}]
    )
    arn = client.run_task(cluster="local", taskDefinition="web", launchType="FARGATE")["tasks"][0]["taskArn"]
    spec, listener = runner.wait_for_start()
    runner.notify(listener.on_started)
    url = spec.environment["ECS_CONTAINER_METADATA_URI_V4"]
    _, container = _get(url)
    _, task = _get(f"{url}/task")
    described = describe_task(client, arn)
    assert _types(container) == CONTAINER
    assert _types(task) == TASK
    assert task["Limits"] == {"CPU": 0.5, "Memory": 1024}
    assert (task["TaskARN"], task["Cluster"]) == (arn, described["clusterArn"])
    assert (task["Family"], task["Revision"], task["KnownStatus"]) == ("web", "1", "RUNNING")
    assert [each["Name"] for each in task["Containers"]] == ["main", "proxy"]
    assert task["Containers"][0] == container
    assert container["ContainerARN"] == described["containers"][0]["containerArn"]
    assert container["Limits"] == {"CPU": 10, "Memory": 128}
    assert container["Labels"]["com.amazonaws.ecs.task-arn"] == arn
    assert container["LogOptions"]["awslogs-stream"] == f"ecs/main/{arn.rpartition('/')[2]}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", container["StartedAt"])


def test_only_the_secret_path_of_a_task_that_has_not_stopped_is_served(start_ecs: StartEcs) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner)
    arns = [client.run_task(cluster="local", taskDefinition="local")["tasks"][0]["taskArn"] for _ in range(2)]
    (first, listener), (second, _) = runner.wait_for_start(1), runner.wait_for_start(2)
    urls = [spec.environment["ECS_CONTAINER_METADATA_URI_V4"] for spec in (first, second)]
    assert {_get(f"{url}/task")[1]["TaskARN"] for url in urls} == set(arns)
    for path in ("/v4/", f"/v4/{first.task_id}", f"/v4/{first.task_id}/task", "/v4//task"):
        parts = urlsplit(urls[0])
        assert _get(f"http://{parts.netloc}{path}")[0] == 404
    assert _get(urls[0], Origin="http://a.page")[0] == 403
    runner.notify(listener.on_started)
    runner.notify(listener.on_exited, 0)
    wait_for_status(client, f"{arns[0].rpartition('/')[0]}/{first.task_id}")
    assert _get(urls[0])[0] == 404
    assert _get(urls[1])[0] == 200


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"), [("1 vCPU", "2 GB", (1.0, 2048)), (".25 vCPU", "512", (0.25, 512))]
)
def test_the_limits_of_a_task_are_processors_and_mebibytes(
    start_ecs: StartEcs, cpu: str, memory: str, expected: tuple[float, int]
) -> None:
    runner = ManualRunner()
    _, client = start_ecs(runner)
    client.register_task_definition(family="sized", cpu=cpu, memory=memory, containerDefinitions=[MAIN])
    client.run_task(cluster="local", taskDefinition="sized")
    spec, _ = runner.wait_for_start()
    _, task = _get(spec.environment["ECS_CONTAINER_METADATA_URI_V4"] + "/task")
    assert (task["Limits"]["CPU"], task["Limits"]["Memory"]) == expected
