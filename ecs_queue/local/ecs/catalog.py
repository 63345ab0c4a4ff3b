"""Clusters and task definitions, and the operations on them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ecs_queue.local.ecs.arns import ArnCodec
from ecs_queue.local.ecs.aws_json import ApiError, client_exception, cluster_not_found, invalid_parameter
from ecs_queue.payload_repr import PayloadRepr

Parameters = dict[str, Any]
ActiveTaskCounts = Callable[[str], tuple[int, int]]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_CONTAINER_DEFAULTS: dict[str, Any] = {"cpu": 0, "essential": True}
_CONTAINER_LISTS = ("environment", "mountPoints", "portMappings", "systemControls", "volumesFrom")
_CLUSTER_COUNTS = ("registeredContainerInstancesCount", "activeServicesCount")
_CLUSTER_OPTIONS = ("tags", "configuration")
_CLUSTER_LISTS = ("statistics", "settings", "capacityProviders", "defaultCapacityProviderStrategy")


@dataclass(slots=True, repr=False)
class TaskDefinition(PayloadRepr):
    """One revision of a task definition, as DescribeTaskDefinition returns it, and its tags."""

    body: dict[str, Any]
    tags: list[dict[str, str]] = field(default_factory=list)

    def executed_container(self, overrides: Parameters) -> dict[str, Any]:
        """Return the container that is executed: the one whose command is overridden.

        Without such an override it is the first essential one, preferably one that names a program itself: others
        have theirs in their image.

        Raises:
            ApiError: InvalidParameterException, if several commands are overridden: only one would be run.
        """
        containers: list[dict[str, Any]] = self.body["containerDefinitions"]
        commands = {each["name"]: each for each in overrides.get("containerOverrides", ()) if each.get("command")}
        if len(commands) > 1:
            raise invalid_parameter(
                f"the local ECS runs one container of a task, and the commands of {', '.join(commands)} are overridden"
            )
        if commands:
            return next(container for container in containers if container["name"] in commands)
        essential = [container for container in containers if container["essential"]]
        with_program = [each for each in essential if each.get("entryPoint") or each.get("command")]
        return (with_program or essential)[0]


class Catalog:
    """The registered clusters and task definitions. `active_tasks` counts a cluster's pending and running tasks."""

    def __init__(self, arns: ArnCodec, clock: Callable[[], float], active_tasks: ActiveTaskCounts) -> None:
        self._arns = arns
        self._clock = clock
        self._active_tasks = active_tasks
        self._clusters: dict[str, dict[str, Any]] = {}
        self._families: dict[str, list[TaskDefinition]] = {}

    def require_cluster(self, given: str | None) -> str:
        """Return the name of an existing cluster; ClusterNotFoundException for any other."""
        name = self._arns.cluster_name(given)
        if name not in self._clusters:
            raise cluster_not_found()
        return name

    def default_strategy(self, cluster: str) -> list[dict[str, Any]]:
        """Return the cluster's default capacity provider strategy; [] when it has none."""
        strategy: list[dict[str, Any]] = self._clusters[cluster]["defaultCapacityProviderStrategy"]
        return strategy

    def find_task_definition(self, given: str) -> TaskDefinition | None:
        """Return the given revision; the newest when none is given."""
        family, revision = self._arns.family_and_revision(given)
        revisions = self._families.get(family, [])
        if revision is None:
            return revisions[-1] if revisions else None
        return revisions[revision - 1] if 1 <= revision <= len(revisions) else None

    def create_cluster(self, parameters: Parameters) -> dict[str, Any]:
        """CreateCluster. An existing cluster is returned unchanged."""
        name = parameters.get("clusterName", "default")
        if not _NAME.fullmatch(name):
            raise invalid_parameter(
                "Identifiers must contain only letters, numbers, hyphens and underscores, at most 255."
            )
        if name not in self._clusters:
            self._clusters[name] = {
                "clusterArn": self._arns.cluster_arn(name),
                "clusterName": name,
                "status": "ACTIVE",
                **{key: value for key, value in parameters.items() if key in _CLUSTER_OPTIONS},
                **{key: parameters.get(key, []) for key in _CLUSTER_LISTS},
            }
        return {"cluster": self._describe_cluster(name, {"TAGS", "SETTINGS", "CONFIGURATIONS"})}

    def delete_cluster(self, parameters: Parameters) -> dict[str, Any]:
        """DeleteCluster. ClusterContainsTasksException while tasks are active; otherwise the cluster is removed."""
        name = self.require_cluster(parameters["cluster"])
        if any(self._active_tasks(name)):
            raise ApiError("ClusterContainsTasksException", "The Cluster cannot be deleted while Tasks are active.")
        cluster = {**self._describe_cluster(name, set()), "status": "INACTIVE"}
        del self._clusters[name]
        return {"cluster": cluster}

    def describe_clusters(self, parameters: Parameters) -> dict[str, Any]:
        """DescribeClusters. Unknown clusters are `failures` MISSING."""
        include = set(parameters.get("include", ()))
        clusters, failures = [], []
        for given in parameters.get("clusters") or ["default"]:
            try:
                clusters.append(self._describe_cluster(self.require_cluster(given), include))
            except ApiError:
                arn = given if given.startswith("arn:") else self._arns.cluster_arn(given)
                failures.append({"arn": arn, "reason": "MISSING"})
        return {"clusters": clusters, "failures": failures}

    def register_task_definition(self, parameters: Parameters) -> dict[str, Any]:
        """RegisterTaskDefinition. Each call makes a new revision."""
        family = parameters["family"]
        if not _NAME.fullmatch(family):
            raise client_exception("Family contains invalid characters.")
        revisions = self._families.setdefault(family, [])
        revision = len(revisions) + 1
        body = {
            "volumes": [],
            "placementConstraints": [],
            **{key: value for key, value in parameters.items() if key != "tags"},
            "taskDefinitionArn": self._arns.task_definition_arn(family, revision),
            "containerDefinitions": _container_definitions(parameters["containerDefinitions"]),
            "revision": revision,
            "status": "ACTIVE",
            "compatibilities": ["EC2", "FARGATE"],
            "registeredAt": self._clock(),
        }
        definition = TaskDefinition(body, parameters.get("tags", []))
        revisions.append(definition)
        return {"taskDefinition": body, "tags": definition.tags}

    def describe_task_definition(self, parameters: Parameters) -> dict[str, Any]:
        """DescribeTaskDefinition. ClientException when there is none."""
        definition = self.find_task_definition(parameters["taskDefinition"])
        if definition is None:
            raise client_exception("Unable to describe task definition.")
        tags = {"tags": definition.tags} if "TAGS" in parameters.get("include", ()) else {}
        return {"taskDefinition": definition.body, **tags}

    def _describe_cluster(self, name: str, include: set[str]) -> dict[str, Any]:
        pending, running = self._active_tasks(name)
        optional = {"TAGS": "tags", "SETTINGS": "settings", "CONFIGURATIONS": "configuration"}
        omitted = {member for option, member in optional.items() if option not in include}
        body = {key: value for key, value in self._clusters[name].items() if key not in omitted}
        counts = {"pendingTasksCount": pending, "runningTasksCount": running}
        return {**body, **dict.fromkeys(_CLUSTER_COUNTS, 0), **counts}


def _container_definitions(given: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add ECS's defaults to container definitions; ClientException for definitions that ECS refuses."""
    containers = [{**_CONTAINER_DEFAULTS, **{key: [] for key in _CONTAINER_LISTS}, **container} for container in given]
    if not containers:
        raise client_exception("Container list cannot be empty.")
    for container in containers:
        for member in ("name", "image"):
            if not container.get(member):
                raise client_exception(f"Container.{member} should not be null or empty.")
    if len({container["name"] for container in containers}) < len(containers):
        raise client_exception("Container names must be unique within a task definition.")
    if not any(container["essential"] for container in containers):
        raise client_exception("A task definition must have at least one essential container.")
    return containers
