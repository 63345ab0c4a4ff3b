"""The HTTP endpoint: dispatches calls to operations, with delays, throttling and injected faults."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from ecs_queue.error_text import traceback_text
from ecs_queue.local.ecs.aws_json import (
    CONTENT_TYPE,
    ApiError,
    access_denied,
    client_exception,
    decode_parameters,
    operation_name,
)
from ecs_queue.local.ecs.catalog import Catalog
from ecs_queue.local.ecs.container_metadata import PREFIX, MetadataPages
from ecs_queue.local.ecs.faults import ApiThrottle, Fault, FaultInjector
from ecs_queue.local.ecs.operations import TaskOperations
from ecs_queue.local.ecs.options import FaultOptions
from ecs_queue.local.ecs.validation import ParameterValidator

Operation = Callable[[dict[str, Any], Fault | None], dict[str, Any]]

log = logging.getLogger(__name__)

INDEX_PAGE = """\
ecs-queue's local ECS: a development tool.

It implements the Amazon ECS API for boto3 and runs the commands of tasks as processes of the user who started
it. It listens on 127.0.0.1 only, and expects the access key id that it printed. Do not expose it.

    AWS_ENDPOINT_URL_ECS={url}
    counters: {url}/_local/stats
    operations: {operations}
"""
#: Faults that refuse a call: AWS's errors.
_REFUSALS: dict[Fault, Callable[[], ApiError]] = {
    Fault.SERVER_ERROR: lambda: ApiError("ServerException", "Service Unavailable. Please try again later.", 500),
    Fault.THROTTLE: lambda: ApiError("ThrottlingException", "Rate exceeded"),
    Fault.DENIED: lambda: access_denied("ecs:RunTask", "*"),
    Fault.CAPACITY_ERROR: lambda: client_exception("Tasks provisioning capacity limit exceeded."),
}
STATS_PATH = "/_local/stats"
#: Of AWS's signatures: the access key's id, the date, the Region.
_CREDENTIAL = re.compile(r"\bCredential=([^/,\s]+)/[^/,\s]*/([^/,\s]*)")
_WRONG_ACCESS_KEY = (
    "The security token included in the request is invalid: this local ECS accepts only the AWS_ACCESS_KEY_ID that it "
    "printed when it started"
)
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost"})


def build_operations(tasks: TaskOperations, catalog: Catalog) -> dict[str, Operation]:
    """Return every operation by its name."""
    plain: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "DescribeTasks": tasks.describe_tasks,
        "StopTask": tasks.stop_task,
        "ListTasks": tasks.list_tasks,
        "DescribeClusters": catalog.describe_clusters,
        "CreateCluster": catalog.create_cluster,
        "DeleteCluster": catalog.delete_cluster,
        "RegisterTaskDefinition": catalog.register_task_definition,
        "DescribeTaskDefinition": catalog.describe_task_definition,
    }
    return {"RunTask": tasks.run_task, **{name: _ignore_fault(call) for name, call in plain.items()}}


class Endpoint:
    """Handles HTTP requests. The counters may be read from any thread."""

    def __init__(
        self,
        operations: Mapping[str, Operation],
        throttle: ApiThrottle,
        fault_injector: FaultInjector,
        metadata_pages: MetadataPages,
        *,
        access_key_id: str | None,
        region: str | None,
        receive_timeout: float,
        latency: float,
        stats: Callable[[], dict[str, Any]],
        new_id: Callable[[], str],
    ) -> None:
        self._operations = operations
        self._validator = ParameterValidator(operations)
        self._throttle = throttle
        self._fault_injector = fault_injector
        self._metadata_pages = metadata_pages
        self._access_key_id = access_key_id
        self._region = region
        self._receive_timeout = receive_timeout
        self._half_latency = latency / 2
        self._stats = stats
        self._new_id = new_id
        self.calls: Counter[str] = Counter()
        self.throttled: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle one request."""
        if request.headers.get("Origin") or request.url.host not in _LOOPBACK_NAMES:
            # A page in the user's browser must not run commands here, whatever host name it uses for this address.
            return web.Response(status=403, text="This server serves local programs only, not web pages.\n")
        if request.method == "GET" and request.path == "/":
            names = ", ".join(sorted(self._operations))
            return web.Response(text=INDEX_PAGE.format(url=request.url.origin(), operations=names))
        if request.method == "GET" and request.path.startswith(PREFIX):  # the path is the secret
            page = self._metadata_pages.find(request.path)
            return web.Response(status=404, text="No such page.\n") if page is None else web.json_response(page)
        caller, region = _read_signature(request.headers)
        if self._access_key_id and not secrets.compare_digest(caller.encode(), self._access_key_id.encode()):
            # The id is the secret here: the signature is not checked.
            return self._error_response(ApiError("UnrecognizedClientException", _WRONG_ACCESS_KEY))
        if self._region not in (None, region):
            message = f"Credential should be scoped to a valid region, not '{region}'."
            return self._error_response(ApiError("InvalidSignatureException", message))
        if request.method == "GET":
            return self._page(request)
        if request.method != "POST":
            return web.Response(status=405, text="POST an ECS call, or GET / for a description.\n")
        return await self._call(request)

    def _page(self, request: web.BaseRequest) -> web.Response:
        if request.path == STATS_PATH:
            return web.json_response(self._stats())
        return web.Response(status=404, text=f"The pages are / and {STATS_PATH}.\n")

    async def _call(self, request: web.BaseRequest) -> web.Response:
        try:
            body = await asyncio.wait_for(request.read(), self._receive_timeout)
        except TimeoutError:
            return web.Response(status=408, text="The body did not arrive in time.\n")
        except ConnectionError:  # the caller was killed, and does not read the response
            return web.Response(status=400, text="The connection was closed before the body was complete.\n")
        request_id = self._new_id()
        try:
            response = web.Response(body=await self._perform(request.headers, body, request))
        except ApiError as error:
            response = self._error_response(error)
        except Exception as error:  # noqa: BLE001 - as AWS, the endpoint goes on
            # The caller gets an error such as AWS's own; the developer sees the cause in the log.
            log.error("the local ECS failed to handle a request: %s", traceback_text(error))
            response = self._error_response(ApiError("ServerException", "the local ECS failed; see its log", 500))
        response.headers["Content-Type"] = CONTENT_TYPE
        response.headers["x-amzn-RequestId"] = request_id
        return response

    def _error_response(self, error: ApiError) -> web.Response:
        self.errors[error.code] += 1
        return web.Response(body=error.body(), status=error.status, headers={"x-amzn-errortype": error.code})

    async def _perform(self, headers: Mapping[str, str], body: bytes, request: web.BaseRequest) -> bytes:
        name = operation_name(headers)
        operation = self._operations.get(name)
        if operation is None:
            known = ", ".join(sorted(self._operations))
            raise ApiError("UnknownOperationException", f"the local ECS has no {name}; it has {known}")
        self.calls[name] += 1
        fault = self._fault_injector.next_fault(name)
        within_quota = self._throttle.allows(name)
        if self._half_latency:
            await asyncio.sleep(self._half_latency)
        try:
            self._raise_refusal(name, fault, within_quota=within_quota)
            parameters = decode_parameters(body)
            self._validator.validate(name, parameters)
            if name == "RunTask":
                _check_rights(self._fault_injector.options, headers, parameters)
            result = msgspec.json.encode(operation(parameters, fault))
        finally:
            if self._half_latency:
                await asyncio.sleep(self._half_latency)
        if fault is not None:
            self.faults[fault.value] += 1
        if fault is Fault.ACCEPT_THEN_DROP and request.transport is not None:
            request.transport.abort()
        return result

    def inject_faults(self, fault_injector: FaultInjector) -> None:
        """Inject these faults from the next call on."""
        self._fault_injector = fault_injector

    def _raise_refusal(self, name: str, fault: Fault | None, *, within_quota: bool) -> None:
        """Raise the errors that AWS returns before a call has any effect."""
        error = _REFUSALS.get(fault) if fault else None
        if fault is not None and error is not None:
            self.faults[fault.value] += 1
        elif not within_quota:
            error = _REFUSALS[Fault.THROTTLE]
        if error is _REFUSALS[Fault.THROTTLE]:
            self.throttled[name] += 1
        if error is not None:
            raise error()


def _read_signature(headers: Mapping[str, str]) -> tuple[str, str]:
    """The access key id and the Region of a call; "" without a signature."""
    found = _CREDENTIAL.search(headers.get("Authorization", ""))
    return (found[1], found[2]) if found else ("", "")


def _check_rights(faults: FaultOptions, headers: Mapping[str, str], parameters: Mapping[str, Any]) -> None:
    """Raise AWS's error when the caller may not call RunTask, or may not pass a role of the task."""
    if _read_signature(headers)[0] in faults.denied_access_key_ids:
        raise access_denied("ecs:RunTask", str(parameters.get("taskDefinition")))
    overrides = parameters.get("overrides", {})
    for role in (overrides.get("taskRoleArn"), overrides.get("executionRoleArn")):
        if role in faults.protected_roles:
            raise access_denied("iam:PassRole", role)


def _ignore_fault(call: Callable[[dict[str, Any]], dict[str, Any]]) -> Operation:
    return lambda parameters, _fault: call(parameters)
