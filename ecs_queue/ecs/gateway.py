"""The calls to Amazon ECS that a worker makes, over boto3.

No call here retries or waits for a rate limit: the caller's rate limiters and the launch protocol decide when a call
is made, and made again. Every method is thread-safe. Whatever AWS or the network does is a result, never an exception.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol
from weakref import WeakSet

from botocore import xform_name

from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.classify import classify_exception, classify_read_error, classify_response, classify_stop_error
from ecs_queue.ecs.clients import EcsClients, Target
from ecs_queue.ecs.cluster_check import cluster_finding
from ecs_queue.error_text import error_text
from ecs_queue.errors import UsageError
from ecs_queue.findings import Finding, Reporter
from ecs_queue.protocol.ecs_results import (
    DescribeTasksResult,
    EcsError,
    EcsErrorKind,
    ListTasksResult,
    RunTaskResult,
    RunTaskResultKind,
    StopTaskResult,
)
from ecs_queue.runtask.botocore_model import run_task_shape, validate

#: The largest number of ARNs in one DescribeTasks (AWS's limit).
DESCRIBE_BATCH_SIZE = 100
#: The longest reason that StopTask keeps (AWS's limit, in characters).
MAX_STOP_REASON_LENGTH = 255
#: An answer of ECS has at least one of these members, empty or not. One without any is another program's: botocore
#: reads a proxy's HTML page with status 200 as an answer without members.
_MEMBERS = {
    "RunTask": ("tasks", "failures"),
    "DescribeTasks": ("tasks", "failures"),
    "DescribeClusters": ("clusters", "failures"),
    "ListTasks": ("taskArns",),
    "StopTask": ("task",),
}
#: The code with which an endpoint refuses startedBy beside another filter.
_REFUSED_FILTERS = "InvalidParameterException"


class EcsGateway(Protocol):
    """What a worker needs of ECS; `BotoEcsGateway` documents each method."""

    def run_task(
        self, target: Target, kwargs: Mapping[str, Any], *, client_token: str, started_by: str, deadline: float
    ) -> RunTaskResult: ...

    def describe_tasks(self, target: Target, arns: Sequence[str]) -> DescribeTasksResult: ...

    def stop_task(self, target: Target, arn: str, reason: str) -> StopTaskResult: ...

    def list_tasks(self, target: Target, started_by: str, family: str) -> ListTasksResult: ...

    def check_cluster(self, target: Target, reporter: Reporter) -> Finding: ...

    def default_strategy(self, target: Target) -> tuple[dict[str, Any], ...] | EcsError: ...


class CallBudgetExceeded(Exception):  # noqa: N818 - it ends a call on purpose
    """The call budget was over before RunTask could be sent."""


class BotoEcsGateway:
    """`EcsGateway` over boto3. `monotonic` is the clock of `run_task`'s deadline, in seconds."""

    def __init__(self, clients: EcsClients, monotonic: Callable[[], float]) -> None:
        self._clients = clients
        self._guard = _SendGuard(monotonic)

    def run_task(
        self, target: Target, kwargs: Mapping[str, Any], *, client_token: str, started_by: str, deadline: float
    ) -> RunTaskResult:
        """Start one task with boto3's run_task arguments; cluster, token and startedBy replace those in them.

        It is not sent after `deadline` (by this gateway's monotonic clock): a worker that was paused, or that waited
        long for credentials, gets NEVER_SENT instead of a task that its claim does not cover.
        """
        arguments = {**kwargs, "cluster": target.cluster, "clientToken": client_token, "startedBy": started_by}
        client = None
        with self._guard.until(deadline) as call:
            try:
                client = self._clients.client(target)
                self._guard.attach(client)
                validate(arguments, run_task_shape(), "run_task")
                response = client.run_task(**arguments)
                foreign = _find_foreign_answer("RunTask", response)
                result = classify_response({} if foreign else response, arguments)
            except CallBudgetExceeded as error:
                reason = f"RunTask was not sent: {error_text(error)}"
                code = type(error).__name__
                result = RunTaskResult(RunTaskResultKind.NEVER_SENT, reason=reason, error_code=code, was_sent=False)
            except Exception as error:  # noqa: BLE001 - whatever botocore raises is a result to the protocol
                result = classify_exception(error, call.sent, arguments)
        is_unusable = result.kind is RunTaskResultKind.UNUSABLE_PROFILE and "Cluster" not in result.error_code
        if is_unusable and client is not None:
            self._clients.invalidate(target, client)  # renewed credentials are then found without a restart
        return result

    def describe_tasks(self, target: Target, arns: Sequence[str]) -> DescribeTasksResult:
        """Return what ECS knows of these tasks of the target's cluster, without tags. One call; none without ARNs.

        Raises:
            UsageError: more than 100 ARNs.
        """
        if len(arns) > DESCRIBE_BATCH_SIZE:
            raise UsageError(f"DescribeTasks takes {DESCRIBE_BATCH_SIZE} ARNs, not {len(arns)}: split them.")
        if not arns:
            return DescribeTasksResult()
        response = self._read(target, "DescribeTasks", cluster=target.cluster, tasks=list(arns))
        if isinstance(response, EcsError):
            return DescribeTasksResult(error=response)
        missing: list[str] = []
        other: dict[str, str] = {}
        for failure in response.get("failures") or ():
            arn, reason = str(failure.get("arn") or ""), str(failure.get("reason") or "")
            if reason == "MISSING":
                missing.append(arn)
            else:
                other[arn] = reason
        tasks = list(response.get("tasks") or ())
        error = None
        if not (tasks or missing or other):
            error = EcsError(EcsErrorKind.UNAVAILABLE, "ECS returned nothing for DescribeTasks.")
        return DescribeTasksResult(tasks, missing, error, other)

    def stop_task(self, target: Target, arn: str, reason: str) -> StopTaskResult:
        """Order the task to stop (SIGTERM, then SIGKILL); may be repeated. `reason` is cut at 255 characters."""
        try:
            client = self._clients.client(target)
            response = client.stop_task(cluster=target.cluster, task=arn, reason=reason[:MAX_STOP_REASON_LENGTH])
        except Exception as error:  # noqa: BLE001 - whatever botocore raises is a result to the protocol
            return StopTaskResult(error=classify_stop_error(error))
        return StopTaskResult(response.get("task"), _find_foreign_answer("StopTask", response))

    def list_tasks(self, target: Target, started_by: str, family: str) -> ListTasksResult:
        """Return all tasks with this startedBy, in at least two calls against the limit of read calls.

        It lists RUNNING before STOPPED, so that a task that stops in between is in one of the two lists. AWS's
        reference says that startedBy must be the only filter. Where an endpoint refuses a second one, startedBy alone
        lists the RUNNING tasks, and the STOPPED ones are found among those of the `family` of the task definition; ""
        if that is not known.
        """
        listing = _Listing()
        error = self._list_pages(target, listing, startedBy=started_by, desiredStatus="RUNNING")
        if error is not None and error.error_code == _REFUSED_FILTERS and not listing.arns:
            error = self._list_pages(target, listing, startedBy=started_by)
            if error is None:
                error = self._list_stopped_of_family(target, started_by, family, listing)
        elif error is None:
            error = self._list_pages(target, listing, startedBy=started_by, desiredStatus="STOPPED")
        return ListTasksResult(list(listing.arns), error, listing.calls)

    def check_cluster(self, target: Target, reporter: Reporter) -> Finding:
        """Return what is found about the target's cluster. One call."""
        response = self._read(target, "DescribeClusters", clusters=[target.cluster])
        if isinstance(response, EcsError):
            return cluster_finding(reporter, target, {}, response.reason, response.kind)
        return cluster_finding(reporter, target, response, "", None)

    def default_strategy(self, target: Target) -> tuple[dict[str, Any], ...] | EcsError:
        """Return the cluster's default capacity provider strategy; () when it has none, an error without a cluster."""
        response = self._read(target, "DescribeClusters", clusters=[target.cluster])
        if isinstance(response, EcsError):
            return response
        clusters = response.get("clusters")
        if not clusters:
            return EcsError(EcsErrorKind.CLUSTER_NOT_FOUND, f"the cluster {target.cluster} does not exist")
        return tuple(clusters[0].get("defaultCapacityProviderStrategy") or ())

    def _list_stopped_of_family(
        self, target: Target, started_by: str, family: str, listing: _Listing
    ) -> EcsError | None:
        """Add the STOPPED tasks of the family that have this startedBy."""
        if not family:
            reason = "ListTasks takes startedBy only alone here, and the family of the task definition is not known."
            return EcsError(EcsErrorKind.INVALID, reason, _REFUSED_FILTERS)
        stopped = _Listing()
        error = self._list_pages(target, stopped, family=family, desiredStatus="STOPPED")
        listing.calls += stopped.calls
        remaining = iter(stopped.arns)
        while arns := list(islice(remaining, DESCRIBE_BATCH_SIZE)):
            described = self.describe_tasks(target, arns)
            listing.calls += 1
            found = [str(task.get("taskArn")) for task in described.tasks if task.get("startedBy") == started_by]
            listing.arns.update(dict.fromkeys(found))
            answered = len(described.tasks) + len(described.missing_arns)
            if described.error is None and answered < len(arns):
                described = replace(described, error=EcsError(EcsErrorKind.UNAVAILABLE, "ECS left out stopped tasks."))
            error = error or described.error
        return error

    def _list_pages(self, target: Target, listing: _Listing, **arguments: str) -> EcsError | None:
        """Add the ARNs of every page; return the error of the page at which it ended."""
        while True:
            page = self._read(target, "ListTasks", cluster=target.cluster, **arguments)
            listing.calls += 1
            if isinstance(page, EcsError):
                return page
            listing.arns.update(dict.fromkeys(page["taskArns"]))
            token = page.get("nextToken")
            if not token:
                return None
            if token == arguments.get("nextToken"):
                return EcsError(EcsErrorKind.UNAVAILABLE, "ListTasks returned the same page token twice.")
            arguments["nextToken"] = token

    def _read(self, target: Target, operation: str, **arguments: Any) -> Mapping[str, Any] | EcsError:
        """Return the response of one read call, or its error."""
        client = None
        try:
            client = self._clients.client(target)
            response: Mapping[str, Any] = getattr(client, xform_name(operation))(**arguments)
        except Exception as error:  # noqa: BLE001 - whatever botocore raises is a result to the protocol
            found = classify_read_error(error)
            if found.kind is EcsErrorKind.UNUSABLE_PROFILE and client is not None:
                self._clients.invalidate(target, client)
            return found
        return _find_foreign_answer(operation, response) or response


def _find_foreign_answer(operation: str, response: Mapping[str, Any]) -> EcsError | None:
    """Return the error of an answer that cannot be ECS's."""
    if any(member in response for member in _MEMBERS[operation]):
        return None
    return EcsError(
        EcsErrorKind.UNAVAILABLE,
        f"What answered {operation} is not Amazon ECS: check the proxy and endpoint_url.",
    )


@dataclass(slots=True)
class _Listing:
    """The ARNs that were listed, each once, and the calls that took."""

    arns: dict[str, None] = field(default_factory=dict)
    calls: int = 0


class _CallState(threading.local):
    """The RunTask call that one thread makes. `deadline` is None between calls."""

    deadline: float | None = None
    sent: bool = False


class _SendGuard:
    """Prevents RunTask from being sent after its deadline, and records whether it was sent.

    botocore emits `before-send` in the calling thread, after signing and right before the request goes out.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._call = _CallState()
        self._lock = threading.Lock()
        self._attached: WeakSet[Any] = WeakSet()

    def attach(self, client: Any) -> None:
        """Guard this client's RunTask; idempotent."""
        with self._lock:
            if client in self._attached:
                return
            client.meta.events.register_last("before-send.ecs.RunTask", self._before_send)
            self._attached.add(client)

    @contextmanager
    def until(self, deadline: float) -> Iterator[_CallState]:
        """Set the deadline of this thread's next RunTask."""
        self._call.deadline, self._call.sent = deadline, False
        try:
            yield self._call
        finally:
            self._call.deadline = None

    def _before_send(self, **_kwargs: object) -> None:
        deadline = self._call.deadline
        if deadline is None:
            return  # not a call of this gateway: another gateway over the same client guards it
        late = self._monotonic() - deadline
        if late > 0:
            raise CallBudgetExceeded(
                f"it was ready {late:.1f} s after the call budget was over (the worker was paused, or the "
                "credentials took long)"
            )
        crash_point("ecs.sending")
        self._call.sent = True
