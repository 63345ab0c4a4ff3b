"""boto3 clients that check every response against botocore's service model, and a runner that tests drive."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

from ecs_queue.local.ecs import ContainerListener, ContainerSpec, LocalEcs

Json = dict[str, Any]

TIMEOUT_SECONDS = 20.0
# Errors of the protocol and of the front door: of every operation, but in no operation's list.
COMMON_ERRORS = {
    *("ThrottlingException", "UnknownOperationException", "SerializationException"),
    *("UnrecognizedClientException", "InvalidSignatureException"),
}
_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "boolean": (bool,),
    "timestamp": (int, float),
    "double": (int, float),
    "float": (int, float),
}


def find_shape_violations(shape: Any, value: Any, path: str = "") -> list[str]:
    """Return how a raw response differs from its shape; botocore itself is lenient."""
    if shape.type_name == "structure":
        if not isinstance(value, dict):
            return [f"{path}: {value!r} is no object"]
        unknown = [f"{path}.{name}: no such member" for name in value if name not in shape.members]
        lacking = [f"{path}.{name}: missing" for name in shape.required_members if name not in value]
        inner = [
            found
            for name, item in value.items()
            if name in shape.members
            for found in find_shape_violations(shape.members[name], item, f"{path}.{name}")
        ]
        return unknown + lacking + inner
    if shape.type_name == "list":
        if not isinstance(value, list):
            return [f"{path}: {value!r} is no list"]
        return [
            one for n, item in enumerate(value) for one in find_shape_violations(shape.member, item, f"{path}[{n}]")
        ]
    if shape.type_name == "map":
        return [one for key, item in value.items() for one in find_shape_violations(shape.value, item, f"{path}.{key}")]
    if type(value) not in _PYTHON_TYPES[shape.type_name]:
        return [f"{path}: {value!r} is no {shape.type_name}"]
    if shape.type_name == "string" and shape.enum and value not in shape.enum:
        return [f"{path}: {value!r} is none of {shape.enum}"]
    return []


def find_error_violations(operation: Any, headers: Mapping[str, str], body: Json) -> list[str]:
    """Return what is wrong with an error response."""
    code = body.pop("__type", None)
    if headers.get("x-amzn-errortype") != code:
        return [f"header {headers.get('x-amzn-errortype')!r} and body {code!r} differ"]
    shapes = {shape.name: shape for shape in operation.error_shapes}
    if code not in shapes:
        return [] if code in COMMON_ERRORS else [f"{code!r} is no error of {operation.name}"]
    body = {("message" if key.lower() == "message" else key): value for key, value in body.items()}
    return find_shape_violations(shapes[code], body)


def _check(operation_model: Any, response_dict: Json, **_: Any) -> None:
    body = json.loads(response_dict["body"])
    if response_dict["status_code"] == 200:
        found = find_shape_violations(operation_model.output_shape, body)
    else:
        found = find_error_violations(operation_model, response_dict["headers"], body)
    assert not found, found


def make_checked_client(server: LocalEcs, *, validate: bool = True, cluster_region: str = "us-east-1") -> Any:
    """A boto3 client of one attempt. ``validate=False`` lets through what boto3 itself would refuse."""
    client = boto3.client(
        "ecs",
        endpoint_url=server.endpoint_url,
        region_name=cluster_region,
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            parameter_validation=validate,
            read_timeout=TIMEOUT_SECONDS,
            max_pool_connections=64,
        ),
    )
    client.meta.events.register("before-parse.ecs", _check)
    return client


def service_model() -> Any:
    """botocore's model of ECS."""
    return botocore.session.get_session().get_service_model("ecs")


def command_override(*argv: str, environment: Mapping[str, str] | None = None, name: str = "main") -> Json:
    """The ``overrides`` that run this command."""
    pairs = [{"name": key, "value": value} for key, value in (environment or {}).items()]
    override: Json = {"name": name, "command": list(argv)}
    return {"containerOverrides": [{**override, "environment": pairs} if pairs else override]}


def run_task(client: Any, *argv: str, **more: Any) -> str:
    """Run one task in the cluster ``local``; its ARN."""
    more.setdefault("overrides", command_override(*argv)) if argv else None
    response = client.run_task(cluster="local", taskDefinition="local", **more)
    assert not response["failures"]
    arn: str = response["tasks"][0]["taskArn"]
    return arn


def describe_task(client: Any, arn: str, **more: Any) -> Json:
    """One task as ECS describes it now."""
    response = client.describe_tasks(cluster="local", tasks=[arn], **more)
    assert not response["failures"], response
    task: Json = response["tasks"][0]
    return task


def wait_for_status(client: Any, arn: str, status: str = "STOPPED") -> Json:
    """Poll until the task has this lastStatus."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (task := describe_task(client, arn))["lastStatus"] != status:
        assert time.monotonic() < deadline, task
        time.sleep(0.005)
    return task


class ManualRunner:
    """A runner whose listeners the test calls itself."""

    def __init__(self) -> None:
        self.started: list[tuple[ContainerSpec, ContainerListener]] = []
        self.stop_requests: list[str] = []
        self._arrived = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Remember the loop."""
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Nothing runs."""

    def start(self, spec: ContainerSpec, listener: ContainerListener) -> ManualContainer:
        """Note it."""
        with self._arrived:
            self.started.append((spec, listener))
            self._arrived.notify_all()
        return ManualContainer(self, spec.task_id)

    def wait_for_start(self, count: int = 1) -> tuple[ContainerSpec, ContainerListener]:
        """The count-th launch, when it has come."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.started) >= count, TIMEOUT_SECONDS)
            return self.started[count - 1]

    def notify(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call a listener in the server's loop, and return when the call and its immediate effects are done."""
        loop = self._loop
        assert loop is not None
        done = threading.Event()
        loop.call_soon_threadsafe(call, *arguments)
        # Twice through the loop: the call may schedule the next status for the loop's next iteration.
        loop.call_soon_threadsafe(lambda: loop.call_soon(done.set))
        assert done.wait(TIMEOUT_SECONDS)


class ManualContainer:
    """Notes that it was asked to stop."""

    def __init__(self, runner: ManualRunner, task_id: str) -> None:
        self._runner = runner
        self._task_id = task_id

    def stop(self) -> None:
        """Note it."""
        self._runner.stop_requests.append(self._task_id)
