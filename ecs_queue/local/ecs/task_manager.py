"""The tasks of a local ECS: creates, starts and finds them, and deletes them after the retention time."""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ecs_queue.local.ecs.arns import ArnCodec
from ecs_queue.local.ecs.catalog import Parameters, TaskDefinition
from ecs_queue.local.ecs.client_tokens import ClientTokenStore
from ecs_queue.local.ecs.container_metadata import VARIABLE, MetadataPages
from ecs_queue.local.ecs.options import LocalEcsOptions
from ecs_queue.local.ecs.runners import ContainerRunner, ContainerSpec
from ecs_queue.local.ecs.task_lifecycle import TaskLifecycle
from ecs_queue.local.ecs.tasks import LocalTask
from ecs_queue.runs.runner_options import CALL_VARIABLE, OPTIONS_VARIABLE

_STARTING_STATUSES = ("PROVISIONING", "PENDING")


class TaskManager:
    """Holds the tasks. Used in the server's event loop only."""

    def __init__(
        self,
        options: LocalEcsOptions,
        arns: ArnCodec,
        runner: ContainerRunner,
        tokens: ClientTokenStore,
        *,
        log_dir: Path,
        base_environment: dict[str, str],
        metadata_pages: MetadataPages,
        endpoint_url: Callable[[], str],
        clock: Callable[[], float],
        new_id: Callable[[], str],
        on_change: Callable[[LocalTask], None] = lambda _: None,
    ) -> None:
        """Wire the parts.

        Args:
            options: of the local ECS.
            arns: builds ARNs.
            runner: runs main containers.
            tokens: gets stopped tasks.
            log_dir: directory of the tasks' output.
            base_environment: variables of every container.
            metadata_pages: gets the tasks that run.
            endpoint_url: returns where the pages are.
            clock: seconds since the epoch.
            new_id: returns 32 hexadecimal digits.
            on_change: called with each new task and after each change of a task.
        """
        self._on_change = on_change
        self._options = options
        self._arns = arns
        self._runner = runner
        self._tokens = tokens
        self.log_dir = log_dir
        self._base_environment = base_environment
        self._metadata_pages = metadata_pages
        self._endpoint_url = endpoint_url
        self._clock = clock
        self._new_id = new_id
        self._random = random.Random(options.faults.seed)
        self._tasks: dict[str, LocalTask] = {}
        self._lifecycles: dict[str, TaskLifecycle] = {}
        self._by_started_by: defaultdict[tuple[str, str], dict[str, LocalTask]] = defaultdict(dict)
        self._stopped: deque[tuple[float, LocalTask]] = deque()
        self.status_counts: Counter[str] = Counter()
        self.created_count = 0

    def create(self, parameters: Parameters, cluster: str, definition: TaskDefinition, token: str | None) -> LocalTask:
        """Return a new task in PROVISIONING; `start` starts it."""
        main = definition.executed_container(parameters.get("overrides", {}))
        self.created_count += 1
        body = self._task_body(parameters, cluster, definition, main)
        tags = list(parameters.get("tags", ()))
        if parameters.get("propagateTags") == "TASK_DEFINITION":
            own = {tag.get("key") for tag in tags}
            tags += [tag for tag in definition.tags if tag.get("key") not in own]
        task = LocalTask(
            body,
            tags,
            cluster=cluster,
            sequence_number=self.created_count,
            client_token=token,
            status_counts=self.status_counts,
            on_change=self._on_change,
            version_step=0 if self._options.constant_version else 1,
        )
        self._tasks[task.task_id] = task
        self._by_started_by[cluster, body.get("startedBy", "")][task.task_id] = task
        metadata_url = self._endpoint_url() + self._metadata_pages.add(task, definition)
        spec = self._container_spec(parameters, main, task.task_id, metadata_url)
        self._lifecycles[task.task_id] = TaskLifecycle(
            task,
            spec,
            self._runner,
            self._options,
            self._random.uniform(*self._options.provision_seconds),
            self._clock,
            self._on_stopped,
        )
        return task

    def start(self, task: LocalTask, start_failure: str | None = None) -> None:
        """Start a new task, or let its start fail for this reason."""
        self._on_change(task)
        self._lifecycles[task.task_id].start(start_failure)

    def stop(self, task: LocalTask, reason: str) -> None:
        """Stop a task; a stopped task stays as it is."""
        lifecycle = self._lifecycles.get(task.task_id)
        if lifecycle is not None:
            lifecycle.stop(reason)

    def find(self, cluster: str, task_id: str) -> LocalTask | None:
        """Return the task; None if it is unknown, in another cluster, or was deleted after the retention time."""
        self._delete_expired()
        task = self._tasks.get(task_id)
        return task if task is not None and task.cluster == cluster else None

    def find_all(self, cluster: str, started_by: str | None) -> Iterable[LocalTask]:
        """Return the tasks of a cluster, oldest first; only those with this startedBy if it is given."""
        self._delete_expired()
        if started_by is not None:
            return self._by_started_by.get((cluster, started_by), {}).values()
        return (task for task in self._tasks.values() if task.cluster == cluster)

    def active_counts(self, cluster: str) -> tuple[int, int]:
        """Return the number of a cluster's tasks that are pending, and of those that run or are ending."""
        statuses = Counter(task.last_status for task in self._tasks.values() if task.cluster == cluster)
        pending = sum(statuses[status] for status in _STARTING_STATUSES)
        return pending, statuses["RUNNING"] + statuses["DEPROVISIONING"]

    def log_path(self, task_id: str) -> Path:
        """Return the file of a task's output."""
        return self.log_dir / f"{task_id}.log"

    def _task_body(
        self, parameters: Parameters, cluster: str, definition: TaskDefinition, main: dict[str, Any]
    ) -> dict[str, Any]:
        now = self._clock()
        task_id = self._new_id()
        defined = definition.body
        overrides = parameters.get("overrides", {})
        body = {
            "attachments": [],
            "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
            "availabilityZone": f"{self._options.region}a",
            "clusterArn": self._arns.cluster_arn(cluster),
            "connectivity": "CONNECTED",
            "connectivityAt": now,
            "cpu": overrides.get("cpu") or defined.get("cpu", "256"),
            "createdAt": now,
            "desiredStatus": "RUNNING",
            "enableExecuteCommand": False,
            "group": parameters.get("group", f"family:{defined['family']}"),
            "healthStatus": "UNKNOWN",
            "lastStatus": "PROVISIONING",
            "memory": overrides.get("memory") or defined.get("memory", "512"),
            "overrides": {"containerOverrides": [], "inferenceAcceleratorOverrides": [], **overrides},
            "taskArn": self._arns.task_arn(cluster, task_id),
            "taskDefinitionArn": defined["taskDefinitionArn"],
            "version": 1,
        }
        body["containers"] = self._containers(cluster, task_id, definition, main)
        return {**body, **_placement_members(parameters)}

    def _containers(
        self, cluster: str, task_id: str, definition: TaskDefinition, main: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """The descriptions of the containers, the main one first."""
        sidecars = [container for container in definition.body["containerDefinitions"] if container is not main]
        return [
            {
                "containerArn": self._arns.container_arn(cluster, task_id, self._new_id()),
                "taskArn": self._arns.task_arn(cluster, task_id),
                "name": container["name"],
                "image": container["image"],
                "lastStatus": "PENDING",
                "networkInterfaces": [],
                "healthStatus": "UNKNOWN",
                "cpu": str(container["cpu"]),
            }
            for container in (main, *sidecars)
        ]

    def _container_spec(
        self, parameters: Parameters, main: dict[str, Any], task_id: str, metadata_url: str
    ) -> ContainerSpec:
        """The main container's argv and environment: base, then task definition, then override, by name."""
        override: dict[str, Any] = {}
        for candidate in parameters.get("overrides", {}).get("containerOverrides", ()):
            if candidate.get("name") == main["name"]:
                override.update(candidate)
        environment = dict(self._base_environment)
        for pair in (*main["environment"], *override.get("environment", ())):
            environment[pair.get("name", "")] = pair.get("value", "")
        environment[VARIABLE] = metadata_url
        if OPTIONS_VARIABLE in environment or CALL_VARIABLE in environment:
            environment |= self._options.runner_environment
        command = override.get("command") or main.get("command", ())
        return ContainerSpec(
            task_id=task_id,
            command=(*main.get("entryPoint", ()), *command),
            environment=environment,
            log_path=self.log_path(task_id),
            stop_timeout=main.get("stopTimeout", self._options.stop_timeout_seconds),
        )

    def _on_stopped(self, task: LocalTask) -> None:
        now = self._clock()
        del self._lifecycles[task.task_id]
        self._metadata_pages.remove(task)
        self._stopped.append((now + self._options.retention_seconds, task))
        if task.client_token is not None:
            self._tokens.task_stopped(task.cluster, task.client_token, task.arn, now)

    def _delete_expired(self) -> None:
        now = self._clock()
        while self._stopped and self._stopped[0][0] <= now:
            _, task = self._stopped.popleft()
            del self._tasks[task.task_id]
            self.status_counts[task.last_status] -= 1
            key = (task.cluster, task.body.get("startedBy", ""))
            self._by_started_by[key].pop(task.task_id)
            if not self._by_started_by[key]:
                del self._by_started_by[key]


def _placement_members(parameters: Parameters) -> dict[str, Any]:
    """Launch type or capacity provider, platform and startedBy, from the call or AWS's defaults."""
    members: dict[str, Any] = {}
    strategy = parameters.get("capacityProviderStrategy")
    launch_type = None if strategy else parameters.get("launchType", "EC2")
    if strategy:
        members["capacityProviderName"] = strategy[0]["capacityProvider"]
    if strategy and members["capacityProviderName"].startswith("FARGATE"):
        launch_type = "FARGATE"
    if launch_type:
        members["launchType"] = launch_type
    if launch_type == "FARGATE":
        members["platformVersion"] = parameters.get("platformVersion", "LATEST").replace("LATEST", "1.4.0")
        members["platformFamily"] = "Linux"
    if "startedBy" in parameters:
        members["startedBy"] = parameters["startedBy"]
    return members
