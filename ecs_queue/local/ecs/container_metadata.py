"""Container metadata, version 4, as a Fargate task reads it at ECS_CONTAINER_METADATA_URI_V4.

Each main container has a secret path: `<path>` describes the container, `<path>/task` its task, with the members that
AWS documents for platform version 1.4. Without a client's access key this is all that can be read, and only until the
task stops. Not modelled: `stats`, `task/stats`, the clock's drift, storage metrics; addresses are those of loopback.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

from ecs_queue.local.ecs.catalog import TaskDefinition
from ecs_queue.local.ecs.tasks import LocalTask

PREFIX = "/v4/"
VARIABLE = "ECS_CONTAINER_METADATA_URI_V4"


class MetadataPages:
    """The pages of tasks that have not stopped. Used in the server's event loop only."""

    def __init__(self) -> None:
        self._tasks: dict[str, tuple[LocalTask, TaskDefinition]] = {}
        self._paths: dict[str, str] = {}

    def add(self, task: LocalTask, definition: TaskDefinition) -> str:
        """Return the new secret path of a task's main container."""
        path = f"{PREFIX}{task.task_id}-{secrets.token_hex(16)}"
        self._tasks[path] = (task, definition)
        self._paths[task.task_id] = path
        return path

    def remove(self, task: LocalTask) -> None:
        """Forget the path of a stopped task."""
        self._tasks.pop(self._paths.pop(task.task_id, ""), None)

    def find(self, path: str) -> dict[str, Any] | None:
        """Return the page at a path; None when there is none."""
        own = path.removesuffix("/").removesuffix("/task")
        if own not in self._tasks:
            return None
        task, definition = self._tasks[own]
        if path.removesuffix("/") == own:
            return describe_container(task, definition, 0)
        return describe_task(task, definition)


def describe_task(task: LocalTask, definition: TaskDefinition) -> dict[str, Any]:
    """Return the metadata of a task."""
    body = task.body
    times = {"PullStartedAt": body.get("pullStartedAt"), "PullStoppedAt": body.get("pullStoppedAt")}
    return {
        "Cluster": body["clusterArn"],
        "TaskARN": task.arn,
        "Family": definition.body["family"],
        "Revision": str(definition.body["revision"]),
        "DesiredStatus": body["desiredStatus"],
        "KnownStatus": task.last_status,
        "Limits": {"CPU": _vcpus(body["cpu"]), "Memory": _mebibytes(body["memory"])},
        **{name: _timestamp(at) for name, at in times.items() if at is not None},
        "AvailabilityZone": body["availabilityZone"],
        **({"LaunchType": body["launchType"]} if "launchType" in body else {}),
        "Containers": [describe_container(task, definition, index) for index in range(len(body["containers"]))],
    }


def describe_container(task: LocalTask, definition: TaskDefinition, index: int) -> dict[str, Any]:
    """Return the metadata of a task's container; its main one has the index 0."""
    container = task.body["containers"][index]
    name = container["name"]
    defined = next(each for each in definition.body["containerDefinitions"] if each["name"] == name)
    started_at = task.body.get("startedAt")
    created_at = started_at or task.body.get("pullStartedAt") or task.body["createdAt"]
    limits = {"CPU": defined["cpu"], **({"Memory": defined["memory"]} if "memory" in defined else {})}
    return {
        "DockerId": f"{task.task_id}-{container['containerArn'].rpartition('/')[2][:10]}",
        "Name": name,
        "DockerName": name,
        "Image": container["image"],
        "ImageID": "",
        "Labels": {
            "com.amazonaws.ecs.cluster": task.body["clusterArn"],
            "com.amazonaws.ecs.container-name": name,
            "com.amazonaws.ecs.task-arn": task.arn,
            "com.amazonaws.ecs.task-definition-family": definition.body["family"],
            "com.amazonaws.ecs.task-definition-version": str(definition.body["revision"]),
        },
        "DesiredStatus": task.body["desiredStatus"],
        "KnownStatus": container["lastStatus"],
        **({"ExitCode": container["exitCode"]} if "exitCode" in container else {}),
        "Limits": limits,
        "CreatedAt": _timestamp(created_at),
        **({} if started_at is None else {"StartedAt": _timestamp(started_at)}),
        "Type": "NORMAL",
        **_log_members(task, defined),
        "ContainerARN": container["containerArn"],
        "Networks": [{"NetworkMode": "awsvpc", "IPv4Addresses": ["127.0.0.1"]}],
    }


def _log_members(task: LocalTask, defined: dict[str, Any]) -> dict[str, Any]:
    configured = defined.get("logConfiguration")
    if not configured:
        return {}
    options = dict(configured.get("options", {}))
    if configured["logDriver"] == "awslogs" and "awslogs-stream-prefix" in options:
        options["awslogs-stream"] = f"{options.pop('awslogs-stream-prefix')}/{defined['name']}/{task.task_id}"
    return {"LogDriver": configured["logDriver"], "LogOptions": options}


def _vcpus(cpu: str) -> float:
    """The number of processors; ECS takes `256` (units) and `.25 vCPU`."""
    number, _, unit = cpu.partition(" ")
    return float(number) if unit else float(number) / 1024


def _mebibytes(memory: str) -> int:
    """ECS takes `512` (MiB) and `0.5 GB`."""
    number, _, unit = memory.partition(" ")
    return round(float(number) * 1024) if unit else int(number)


def _timestamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
