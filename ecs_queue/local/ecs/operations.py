"""RunTask, DescribeTasks, StopTask and ListTasks."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ecs_queue.local.ecs.catalog import Catalog, Parameters
from ecs_queue.local.ecs.limits import Fault
from ecs_queue.local.ecs.names import Names
from ecs_queue.local.ecs.tasks import LocalTask, stopped_replay
from ecs_queue.local.ecs.tokens import TokenBook, TokenEntry
from ecs_queue.local.ecs.wire import client_error, invalid
from ecs_queue.local.ecs.workshop import Workshop

MAX_COUNT = 10
MAX_DESCRIBED = 100
MAX_PAGE = 100
MAX_OVERRIDES = 8192
_TOKEN = re.compile(r"[!-~]{1,64}")
_STARTED_BY = re.compile(r"[A-Za-z0-9_/-]{0,128}")
_NOT_IN_THE_DIGEST = ("clientToken", "cluster")


class TaskOperations:
    """The calls about tasks. Each answers what AWS documents, or raises ApiError."""

    def __init__(
        self,
        names: Names,
        catalog: Catalog,
        workshop: Workshop,
        tokens: TokenBook,
        clock: Callable[[], float],
    ) -> None:
        self._names = names
        self._catalog = catalog
        self._workshop = workshop
        self._tokens = tokens
        self._clock = clock

    def run_task(self, parameters: Parameters, fault: Fault | None) -> dict[str, Any]:
        """RunTask. The same clientToken and parameters answer for the tasks of the first call."""
        cluster = self._catalog.cluster(parameters.get("cluster"))
        _check_run_task(parameters)
        token = parameters.get("clientToken")
        if token is None:
            return self._run_new(parameters, cluster, None, fault)[0]
        digest = _digest(parameters)
        now = self._clock()
        entry = self._tokens.find(cluster, token, digest, now)
        if entry is not None:
            return self._replay(entry)
        answer, tasks = self._run_new(parameters, cluster, token, fault)
        arns = tuple(task.arn for task in tasks)
        self._tokens.remember(cluster, token, digest, arns, tuple(answer["failures"]), now)
        return answer

    def describe_tasks(self, parameters: Parameters) -> dict[str, Any]:
        """DescribeTasks; unknown ones are ``failures`` MISSING."""
        cluster = self._catalog.cluster(parameters.get("cluster"))
        given = parameters["tasks"]
        if not given:
            raise invalid("Tasks cannot be empty.")
        if len(given) > MAX_DESCRIBED:
            raise invalid(f"Tasks cannot have more than {MAX_DESCRIBED} items, found {len(given)}.")
        with_tags = "TAGS" in parameters.get("include", ())
        tasks, failures = [], []
        for identifier in given:
            task_id = self._names.task_id(identifier)
            task = self._workshop.task(cluster, task_id)
            if task is None:
                arn = self._names.task_arn(cluster, task_id)
                failures.append({"arn": arn, "reason": "MISSING"})
            else:
                tasks.append(task.json_with_tags() if with_tags else task.json())
        return {"tasks": tasks, "failures": failures}

    def stop_task(self, parameters: Parameters) -> dict[str, Any]:
        """StopTask; a stopped task is answered as it is."""
        cluster = self._catalog.cluster(parameters.get("cluster"))
        reason = parameters.get("reason") or "Task stopped by user"
        if len(reason) > 255:
            raise invalid(f"reason: expected at most 255 characters, found {len(reason)}")
        task = self._workshop.task(cluster, self._names.task_id(parameters["task"]))
        if task is None:
            raise invalid("The referenced task was not found.")
        self._workshop.stop(task, reason)
        return {"task": task.json()}

    def list_tasks(self, parameters: Parameters) -> dict[str, Any]:
        """ListTasks by startedBy or by family and launchType, of one desiredStatus, in pages."""
        cluster = self._catalog.cluster(parameters.get("cluster"))
        _check_list_tasks(parameters)
        size = parameters.get("maxResults", MAX_PAGE)
        after = _page_number(parameters.get("nextToken"))
        arns: list[str] = []
        last = after
        for task in self._matching(cluster, parameters):
            if task.number <= after:
                continue
            if len(arns) == size:
                return {"taskArns": arns, "nextToken": _page_token(last)}
            arns.append(task.arn)
            last = task.number
        return {"taskArns": arns}

    def _matching(self, cluster: str, parameters: Parameters) -> Iterator[LocalTask]:
        status = parameters.get("desiredStatus", "RUNNING")
        group = f"family:{parameters['family']}" if "family" in parameters else None
        launch_type = parameters.get("launchType")
        for task in self._workshop.tasks(cluster, parameters.get("startedBy")):
            body = task.body
            if body["desiredStatus"] != status:
                continue
            if group is not None and f"family:{_family_of(body)}" != group:
                continue
            if launch_type is not None and body.get("launchType") != launch_type:
                continue
            yield task

    def _run_new(
        self, parameters: Parameters, cluster: str, token: str | None, fault: Fault | None
    ) -> tuple[dict[str, Any], list[LocalTask]]:
        definition = self._catalog.definition(parameters["taskDefinition"])
        if definition is None:
            raise client_error("TaskDefinition not found.")
        known = {container["name"] for container in definition.body["containerDefinitions"]}
        for override in parameters.get("overrides", {}).get("containerOverrides", ()):
            if override.get("name") not in known:
                name = override.get("name", "")
                raise invalid(f"Override for container named {name} is not a container in the TaskDefinition.")
        count = parameters.get("count", 1)
        if fault is Fault.CAPACITY:
            lacking = {"arn": self._names.cluster_arn(cluster), "reason": "RESOURCE:CPU"}
            return {"tasks": [], "failures": [lacking] * count}, []
        tasks = [self._workshop.create(parameters, cluster, definition, token) for _ in range(count)]
        answer = {"tasks": [task.json_with_tags() for task in tasks], "failures": []}
        for task in tasks:
            self._workshop.begin(task, fails=fault is Fault.START_FAILURE)
        return answer, tasks

    def _replay(self, entry: TokenEntry) -> dict[str, Any]:
        tasks = []
        for arn in entry.arns:
            task = self._workshop.by_arn(arn)
            tasks.append(stopped_replay(arn) if task is None else task.json_of_a_replay())
        return {"tasks": tasks, "failures": list(entry.failures)}


def _check_run_task(parameters: Parameters) -> None:
    """The rules of RunTask that the service model does not state."""
    count = parameters.get("count", 1)
    if not 1 <= count <= MAX_COUNT:
        raise invalid(f"count: expected 1 to {MAX_COUNT}, found {count}")
    token = parameters.get("clientToken")
    if token is not None and not _TOKEN.fullmatch(token):
        raise invalid(f"clientToken: expected 1 to 64 characters of ASCII 33-126, found {token!r}")
    started_by = parameters.get("startedBy", "")
    if not _STARTED_BY.fullmatch(started_by):
        raise invalid(f"startedBy: expected at most 128 of letters, digits, - _ /, found {started_by!r}")
    if "launchType" in parameters and parameters.get("capacityProviderStrategy"):
        raise invalid(
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again."
        )
    # Bytes are at least as many as characters: the exact count is needed near the limit only.
    overrides = msgspec.json.encode(parameters.get("overrides", {}))
    if len(overrides) > MAX_OVERRIDES and len(overrides.decode()) > MAX_OVERRIDES:
        raise invalid(f"Container Overrides length must be at most {MAX_OVERRIDES}")


def _check_list_tasks(parameters: Parameters) -> None:
    for member in ("containerInstance", "serviceName", "daemonName"):
        if member in parameters:
            raise invalid(f"{member}: the local ECS has none, it can list by startedBy, family and launchType")
    others = sorted({"family", "launchType"} & parameters.keys())
    if "startedBy" in parameters and others:
        raise invalid(f"startedBy must be the only filter beside desiredStatus, found {', '.join(others)} too")
    size = parameters.get("maxResults", MAX_PAGE)
    if not 1 <= size <= MAX_PAGE:
        raise invalid(f"maxResults: expected 1 to {MAX_PAGE}, found {size}")


def _digest(parameters: Parameters) -> bytes:
    """What makes two calls the same; the cluster is part of the token's scope."""
    compared = {key: value for key, value in parameters.items() if key not in _NOT_IN_THE_DIGEST}
    encoded = msgspec.json.encode(compared, order="deterministic")
    return hashlib.blake2b(encoded, digest_size=16).digest()


def _family_of(body: dict[str, Any]) -> str:
    name: str = body["taskDefinitionArn"].partition(":task-definition/")[2]
    return name.partition(":")[0]


def _page_token(number: int) -> str:
    return base64.urlsafe_b64encode(f"after:{number}".encode()).decode()


def _page_number(token: str | None) -> int:
    if token is None:
        return 0
    try:
        word, _, number = base64.urlsafe_b64decode(token).decode().partition(":")
        if word == "after":
            return int(number)
    except (ValueError, binascii.Error):
        pass  # refused below like any other token that this server never made
    raise invalid("Invalid token")
