"""RunTask, DescribeTasks, StopTask and ListTasks."""

from __future__ import annotations

import base64
import binascii
import hashlib
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
from ecs_queue.local.ecs.tasks import LocalTask, stopped_task_json

MAX_RUN_COUNT = 10
MAX_DESCRIBE_TASKS = 100
MAX_PAGE_SIZE = 100
MAX_OVERRIDES_LENGTH = 8192
_TOKEN = re.compile(r"[!-~]{1,64}")
_STARTED_BY = re.compile(r"[A-Za-z0-9_/-]{0,128}")
_DIGEST_EXCLUDED = ("clientToken", "cluster")


class TaskOperations:
    """The calls about tasks. Each answers what AWS documents, or raises ApiError."""

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
        """RunTask. The same clientToken and parameters answer for the tasks of the first call."""
        cluster = self._catalog.require_cluster(parameters.get("cluster"))
        _check_run_task(parameters)
        token = parameters.get("clientToken")
        if token is None:
            return self._run_new(parameters, cluster, None, fault)[0]
        digest = _digest(parameters)
        now = self._clock()
        entry = self._tokens.find(cluster, token, digest, now)
        if entry is not None:
            return self._repeated_answer(entry)
        answer, tasks = self._run_new(parameters, cluster, token, fault)
        arns = tuple(task.arn for task in tasks)
        self._tokens.add(cluster, token, digest, arns, tuple(answer["failures"]), now)
        return answer

    def describe_tasks(self, parameters: Parameters) -> dict[str, Any]:
        """DescribeTasks; unknown ones are ``failures`` MISSING."""
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
                arn = self._arns.task_arn(cluster, task_id)
                failures.append({"arn": arn, "reason": "MISSING"})
            else:
                tasks.append(task.json_with_tags() if with_tags else task.json())
        return {"tasks": tasks, "failures": failures}

    def stop_task(self, parameters: Parameters) -> dict[str, Any]:
        """StopTask; a stopped task is answered as it is."""
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
        arns: list[str] = []
        last = after
        for task in self._matching(cluster, parameters):
            if task.sequence_number <= after:
                continue
            if len(arns) == size:
                return {"taskArns": arns, "nextToken": _make_page_token(last)}
            arns.append(task.arn)
            last = task.sequence_number
        return {"taskArns": arns}

    def _matching(self, cluster: str, parameters: Parameters) -> Iterator[LocalTask]:
        status = parameters.get("desiredStatus", "RUNNING")
        group = f"family:{parameters['family']}" if "family" in parameters else None
        launch_type = parameters.get("launchType")
        for task in self._task_manager.find_all(cluster, parameters.get("startedBy")):
            body = task.body
            if body["desiredStatus"] != status:
                continue
            if group is not None and f"family:{_task_family(body)}" != group:
                continue
            if launch_type is not None and body.get("launchType") != launch_type:
                continue
            yield task

    def _run_new(
        self, parameters: Parameters, cluster: str, token: str | None, fault: Fault | None
    ) -> tuple[dict[str, Any], list[LocalTask]]:
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
            lacking = {"arn": self._arns.cluster_arn(cluster), "reason": "RESOURCE:CPU"}
            return {"tasks": [], "failures": [lacking] * count}, []
        tasks = [self._task_manager.create(parameters, cluster, definition, token) for _ in range(count)]
        answer = {"tasks": [task.json_with_tags() for task in tasks], "failures": []}
        for task in tasks:
            self._task_manager.start(task, start_fails=fault is Fault.START_FAILURE)
        return answer, tasks

    def _repeated_answer(self, entry: ClientTokenEntry) -> dict[str, Any]:
        tasks = []
        for arn in entry.arns:
            task = self._task_manager.find_by_arn(arn)
            tasks.append(stopped_task_json(arn) if task is None else task.repeated_call_json())
        return {"tasks": tasks, "failures": list(entry.failures)}


def _check_run_task(parameters: Parameters) -> None:
    """The rules of RunTask that the service model does not state."""
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
    # Bytes are at least as many as characters: the exact count is needed near the limit only.
    overrides = msgspec.json.encode(parameters.get("overrides", {}))
    if len(overrides) > MAX_OVERRIDES_LENGTH and len(overrides.decode()) > MAX_OVERRIDES_LENGTH:
        raise invalid_parameter(f"Container Overrides length must be at most {MAX_OVERRIDES_LENGTH}")


def _check_list_tasks(parameters: Parameters) -> None:
    for member in ("containerInstance", "serviceName", "daemonName"):
        if member in parameters:
            raise invalid_parameter(
                f"{member}: the local ECS has none, it can list by startedBy, family and launchType"
            )
    others = sorted({"family", "launchType"} & parameters.keys())
    if "startedBy" in parameters and others:
        raise invalid_parameter(
            f"startedBy must be the only filter beside desiredStatus, found {', '.join(others)} too"
        )
    size = parameters.get("maxResults", MAX_PAGE_SIZE)
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise invalid_parameter(f"maxResults: expected 1 to {MAX_PAGE_SIZE}, found {size}")


def _digest(parameters: Parameters) -> bytes:
    """What makes two calls the same; the cluster is part of the token's scope."""
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
        word, _, number = base64.urlsafe_b64decode(token).decode().partition(":")
        if word == "after":
            return int(number)
    except (ValueError, binascii.Error):
        pass  # refused below like any other token that this server never made
    raise invalid_parameter("Invalid token")
