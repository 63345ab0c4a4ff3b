"""The operations RunTask, DescribeTasks, StopTask and ListTasks."""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ecs_queue.local.ecs.arns import ArnCodec
from ecs_queue.local.ecs.aws_json import client_exception, invalid_parameter
from ecs_queue.local.ecs.catalog import Catalog, Parameters
from ecs_queue.local.ecs.client_tokens import ClientTokenEntry, ClientTokenStore
from ecs_queue.local.ecs.faults import Fault
from ecs_queue.local.ecs.task_manager import TaskManager
from ecs_queue.local.ecs.tasks import LocalTask

MAX_RUN_COUNT = 10
MAX_DESCRIBE_TASKS = 100
MAX_PAGE_SIZE = 100
MAX_OVERRIDES_LENGTH = 8192
#: Faults that end a task before it starts: its stoppedReason.
_START_FAILURES = {
    Fault.START_FAILURE: "CannotPullContainerError: pull image manifest has been retried 5 time(s): "
    "a start failure injected by the local ECS",
    Fault.CAPACITY_STOP: "Capacity is unavailable at this time. Please try again later or in a different "
    "availability zone",
}
_TOKEN = re.compile(r"[!-~]{1,64}")
_STARTED_BY = re.compile(r"[A-Za-z0-9_/-]{0,128}")
_DIGEST_EXCLUDED = ("clientToken", "cluster")


class TaskOperations:
    """The operations on tasks. Each returns what AWS documents, or raises ApiError."""

    def __init__(
        self,
        arns: ArnCodec,
        catalog: Catalog,
        task_manager: TaskManager,
        tokens: ClientTokenStore,
        clock: Callable[[], float],
    ) -> None:
        self._arns = arns
        self._catalog = catalog
        self._task_manager = task_manager
        self._tokens = tokens
        self._clock = clock

    def run_task(self, parameters: Parameters, fault: Fault | None) -> dict[str, Any]:
        """RunTask. A repeated call with the same clientToken and parameters returns the tasks of the first call."""
        cluster = self._catalog.require_cluster(parameters.get("cluster"))
        _check_run_task(parameters)
        token = parameters.get("clientToken")
        if token is None:
            return self._run_new(parameters, cluster, None, fault)[0]
        digest = _digest(parameters)
        now = self._clock()
        entry = self._tokens.find(cluster, token, digest, now)
        if entry is not None:
            return self._repeated_result(cluster, entry)
        result, arns = self._run_new(parameters, cluster, token, fault)
        self._tokens.add(cluster, token, digest, arns, tuple(result["failures"]), now)
        return result

    def describe_tasks(self, parameters: Parameters) -> dict[str, Any]:
        """DescribeTasks. Unknown tasks are `failures` MISSING."""
        cluster = self._catalog.require_cluster(parameters.get("cluster"))
        given = parameters["tasks"]
        if not given:
            raise invalid_parameter("Tasks cannot be empty.")
        if len(given) > MAX_DESCRIBE_TASKS:
            raise invalid_parameter(f"Tasks cannot have more than {MAX_DESCRIBE_TASKS} items, found {len(given)}.")
        with_tags = "TAGS" in parameters.get("include", ())
        tasks, failures = [], []
        for identifier in given:
            task_id = self._arns.task_id(identifier)
            task = self._task_manager.find(cluster, task_id)
            if task is None:
                failures.append({"arn": self._arns.task_arn(cluster, task_id), "reason": "MISSING"})
            else:
                tasks.append(task.json_with_tags() if with_tags else task.json())
        return {"tasks": tasks, "failures": failures}

    def stop_task(self, parameters: Parameters) -> dict[str, Any]:
        """StopTask. A stopped task is returned unchanged."""
        cluster = self._catalog.require_cluster(parameters.get("cluster"))
        reason = parameters.get("reason") or "Task stopped by user"
        if len(reason) > 255:
            raise invalid_parameter(f"reason: expected at most 255 characters, found {len(reason)}")
        task = self._task_manager.find(cluster, self._arns.task_id(parameters["task"]))
        if task is None:
            raise invalid_parameter("The referenced task was not found.")
        self._task_manager.stop(task, reason)
        return {"task": task.json()}

    def list_tasks(self, parameters: Parameters) -> dict[str, Any]:
        """ListTasks by startedBy or by family and launchType, of one desiredStatus, in pages."""
        cluster = self._catalog.require_cluster(parameters.get("cluster"))
        _check_list_tasks(parameters)
        size = parameters.get("maxResults", MAX_PAGE_SIZE)
        after = _parse_page_token(parameters.get("nextToken"))
        found = (task for task in self._find_matching(cluster, parameters) if task.sequence_number > after)
        page = list(itertools.islice(found, size))
        arns = [task.arn for task in page]
        if next(found, None) is None:
            return {"taskArns": arns}
        return {"taskArns": arns, "nextToken": _make_page_token(page[-1].sequence_number)}

    def _find_matching(self, cluster: str, parameters: Parameters) -> Iterator[LocalTask]:
        status = parameters.get("desiredStatus", "RUNNING")
        family, launch_type = parameters.get("family"), parameters.get("launchType")
        for task in self._task_manager.find_all(cluster, parameters.get("startedBy")):
            body = task.body
            if (
                body["desiredStatus"] == status
                and family in (None, _task_family(body))
                and launch_type in (None, body.get("launchType"))
            ):
                yield task

    def _run_new(
        self, parameters: Parameters, cluster: str, token: str | None, fault: Fault | None
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The result, and the ARNs of the new tasks."""
        if not parameters.get("launchType") and not parameters.get("capacityProviderStrategy"):
            parameters = {**parameters, "capacityProviderStrategy": self._catalog.default_strategy(cluster)}
        definition = self._catalog.find_task_definition(parameters["taskDefinition"])
        if definition is None:
            raise client_exception("TaskDefinition not found.")
        known = {container["name"] for container in definition.body["containerDefinitions"]}
        for override in parameters.get("overrides", {}).get("containerOverrides", ()):
            if override.get("name") not in known:
                name = override.get("name", "")
                raise invalid_parameter(
                    f"Override for container named {name} is not a container in the TaskDefinition."
                )
        count = parameters.get("count", 1)
        if fault is Fault.CAPACITY:
            failure = {"arn": self._arns.cluster_arn(cluster), "reason": "RESOURCE:CPU"}
            return {"tasks": [], "failures": [failure] * count}, ()
        tasks = [self._task_manager.create(parameters, cluster, definition, token) for _ in range(count)]
        result = {"tasks": [task.json_with_tags() for task in tasks], "failures": []}
        for task in tasks:
            self._task_manager.start(task, _START_FAILURES.get(fault) if fault else None)
        return result, tuple(task.arn for task in tasks)

    def _repeated_result(self, cluster: str, entry: ClientTokenEntry) -> dict[str, Any]:
        """The tasks of an earlier call; of a stopped task only ARN and statuses."""
        tasks: list[Any] = []
        for arn in entry.arns:
            task = self._task_manager.find(cluster, self._arns.task_id(arn))
            if task is None or task.last_status == "STOPPED":
                tasks.append({"taskArn": arn, "lastStatus": "STOPPED", "desiredStatus": "STOPPED"})
            else:
                tasks.append(task.json_with_tags())
        return {"tasks": tasks, "failures": list(entry.failures)}


def _check_run_task(parameters: Parameters) -> None:
    """Check the rules of RunTask that are not in the service model."""
    count = parameters.get("count", 1)
    if not 1 <= count <= MAX_RUN_COUNT:
        raise invalid_parameter(f"count: expected 1 to {MAX_RUN_COUNT}, found {count}")
    token = parameters.get("clientToken")
    if token is not None and not _TOKEN.fullmatch(token):
        raise invalid_parameter(f"clientToken: expected 1 to 64 characters of ASCII 33-126, found {token!r}")
    started_by = parameters.get("startedBy", "")
    if not _STARTED_BY.fullmatch(started_by):
        raise invalid_parameter(f"startedBy: expected at most 128 of letters, digits, - _ /, found {started_by!r}")
    if "launchType" in parameters and parameters.get("capacityProviderStrategy"):
        raise invalid_parameter(
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again."
        )
    # There are at least as many bytes as characters: characters are counted only near the limit.
    overrides = msgspec.json.encode(parameters.get("overrides", {}))
    if len(overrides) > MAX_OVERRIDES_LENGTH and len(overrides.decode()) > MAX_OVERRIDES_LENGTH:
        raise invalid_parameter(f"Container Overrides length must be at most {MAX_OVERRIDES_LENGTH}")


def _check_list_tasks(parameters: Parameters) -> None:
    for member in ("containerInstance", "serviceName", "daemonName"):
        if member in parameters:
            raise invalid_parameter(f"{member}: not supported, the local ECS lists by startedBy, family and launchType")
    others = sorted({"family", "launchType"} & parameters.keys())
    if "startedBy" in parameters and others:
        raise invalid_parameter(
            f"startedBy must be the only filter beside desiredStatus, found {', '.join(others)} too"
        )
    size = parameters.get("maxResults", MAX_PAGE_SIZE)
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise invalid_parameter(f"maxResults: expected 1 to {MAX_PAGE_SIZE}, found {size}")


def _digest(parameters: Parameters) -> bytes:
    """Identifies calls with the same parameters; the cluster belongs to the token."""
    compared = {key: value for key, value in parameters.items() if key not in _DIGEST_EXCLUDED}
    encoded = msgspec.json.encode(compared, order="deterministic")
    return hashlib.blake2b(encoded, digest_size=16).digest()


def _task_family(body: dict[str, Any]) -> str:
    name: str = body["taskDefinitionArn"].partition(":task-definition/")[2]
    return name.partition(":")[0]


def _make_page_token(number: int) -> str:
    return base64.urlsafe_b64encode(f"after:{number}".encode()).decode()


def _parse_page_token(token: str | None) -> int:
    if token is None:
        return 0
    try:
        name, _, number = base64.urlsafe_b64decode(token).decode().partition(":")
        if name == "after":
            return int(number)
    except (ValueError, binascii.Error):
        pass  # refused below, as any other token that this server did not make
    raise invalid_parameter("Invalid token")
