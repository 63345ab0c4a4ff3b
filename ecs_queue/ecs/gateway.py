"""The calls to Amazon ECS that the launchers and trackers make, over boto3.

No call here retries or waits for a quota: the caller's rate limiters and the launch protocol decide when a
call is made (again). Every method may be called from any number of threads. What AWS or the network does is
an answer, never an exception.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakSet

from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.classify import classify_exception, classify_read_error, classify_response, classify_stop_error
from ecs_queue.ecs.clients import EcsClients, Target
from ecs_queue.errors import UsageError
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

#: The most ARNs that one DescribeTasks takes (AWS's limit).
DESCRIBE_BATCH_SIZE = 100
#: The longest reason that StopTask keeps (AWS's limit, in characters).
MAX_STOP_REASON_LENGTH = 255


class EcsGateway(Protocol):
    """What launchers and trackers need of ECS; `BotoEcsGateway` documents each method."""

    def run_task(
        self,
        target: Target,
        kwargs: Mapping[str, Any],
        *,
        client_token: str,
        started_by: str,
        deadline: float,
    ) -> RunTaskResult: ...

    def describe_tasks(self, target: Target, arns: Sequence[str]) -> DescribeTasksResult: ...

    def stop_task(self, target: Target, arn: str, reason: str) -> StopTaskResult: ...

    def list_tasks(self, target: Target, started_by: str) -> ListTasksResult: ...

    def check_cluster(self, target: Target) -> list[str]: ...


class CallBudgetExceeded(Exception):  # noqa: N818 - it ends a call on purpose
    """The call budget was over before RunTask could be sent."""


class BotoEcsGateway:
    """`EcsGateway` over boto3. `monotonic` is the clock of run_task's deadline, in seconds."""

    def __init__(self, clients: EcsClients, monotonic: Callable[[], float]) -> None:
        self._clients = clients
        self._guard = _SendGuard(monotonic)

    def run_task(
        self,
        target: Target,
        kwargs: Mapping[str, Any],
        *,
        client_token: str,
        started_by: str,
        deadline: float,
    ) -> RunTaskResult:
        """Start one task with boto3's run_task arguments; cluster, token and startedBy are set over them.

        It is not sent after `deadline` (by this gateway's monotonic clock): a worker that was paused, or that
        waited long for credentials, gets NEVER_SENT instead of a task that its claim does not cover.
        """
        own = {"cluster": target.cluster, "clientToken": client_token, "startedBy": started_by}
        arguments = {**kwargs, **own}
        client = None
        with self._guard.until(deadline) as call:
            try:
                client = self._clients.client(target)
                self._guard.attach(client)
                validate(arguments, run_task_shape(), "run_task")
                answer = classify_response(client.run_task(**arguments))
            except CallBudgetExceeded as over:
                answer = RunTaskResult(
                    RunTaskResultKind.NEVER_SENT,
                    reason=f"RunTask was not sent: {over}",
                    error_code="CallBudgetExceeded",
                    was_sent=False,
                )
            except Exception as error:  # noqa: BLE001 - whatever botocore raises is an answer to the protocol
                answer = classify_exception(error, call.sent)
        if (
            answer.kind is RunTaskResultKind.UNUSABLE_PROFILE
            and client is not None
            and "Cluster" not in answer.error_code
        ):
            self._clients.invalidate(target, client)  # renewed credentials are then found without a restart
        return answer

    def describe_tasks(self, target: Target, arns: Sequence[str]) -> DescribeTasksResult:
        """What ECS knows of these tasks of the target's cluster: one call, without tags.

        At most 100 ARNs (UsageError for more); none make no call. See `DescribeAnswer` for ARNs in doubt.
        """
        if len(arns) > DESCRIBE_BATCH_SIZE:
            raise UsageError(f"DescribeTasks takes {DESCRIBE_BATCH_SIZE} ARNs, not {len(arns)}: split them.")
        if not arns:
            return DescribeTasksResult()
        response = self._read(target, "describe_tasks", cluster=target.cluster, tasks=list(arns))
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
        trouble = None
        if not (tasks or missing or other):
            trouble = EcsError(EcsErrorKind.UNAVAILABLE, "ECS answered DescribeTasks with nothing at all.")
        return DescribeTasksResult(tasks, missing, trouble, other)

    def stop_task(self, target: Target, arn: str, reason: str) -> StopTaskResult:
        """Order the task to stop (SIGTERM, then SIGKILL); twice does no harm. `reason` is cut at 255."""
        try:
            client = self._clients.client(target)
            response = client.stop_task(cluster=target.cluster, task=arn, reason=reason[:MAX_STOP_REASON_LENGTH])
        except Exception as error:  # noqa: BLE001 - whatever botocore raises is an answer to the protocol
            return StopTaskResult(error=classify_stop_error(error))
        return StopTaskResult(response.get("task"))

    def list_tasks(self, target: Target, started_by: str) -> ListTasksResult:
        """All tasks with this startedBy: at least two calls against the quota of DescribeTasks and ListTasks.

        RUNNING before STOPPED, because a task may stop in between and must be in one of both.
        """
        found: dict[str, None] = {}
        for status in ("RUNNING", "STOPPED"):
            for page in self._list_pages(target, startedBy=started_by, desiredStatus=status):
                if isinstance(page, EcsError):
                    return ListTasksResult(list(found), page)
                found.update(dict.fromkeys(page))
        return ListTasksResult(list(found))

    def check_cluster(self, target: Target) -> list[str]:
        """What stands in the way of launching there, as sentences; [] when nothing does. One call."""
        response = self._read(target, "describe_clusters", clusters=[target.cluster])
        where = f"Cluster {target.cluster} in {target.region}"
        if isinstance(response, EcsError):
            if response.kind is EcsErrorKind.DENIED:
                return [
                    f"{where} cannot be checked: {response.reason} "
                    "Without ecs:DescribeClusters set check_health_on_startup = False."
                ]
            return [f"{where} cannot be used: {response.reason}"]
        clusters = response.get("clusters") or []
        if not clusters:
            return [f"{where} does not exist: check cluster and region_name of the profile, or create it."]
        status = clusters[0].get("status") or "unknown"
        if status != "ACTIVE":
            return [f"{where} is {status}, not ACTIVE: no task can be started there."]
        return []

    def _list_pages(self, target: Target, **arguments: str) -> Iterator[list[str] | EcsError]:
        """The pages of one ListTasks; trouble ends them."""
        token: str | None = None
        while True:
            more = {"nextToken": token} if token else {}
            response = self._read(target, "list_tasks", cluster=target.cluster, **arguments, **more)
            if isinstance(response, EcsError):
                yield response
                return
            if "taskArns" not in response:
                yield EcsError(EcsErrorKind.UNAVAILABLE, "ECS answered ListTasks with nothing at all.")
                return
            yield list(response["taskArns"])
            following = response.get("nextToken")
            if following and following == token:
                yield EcsError(EcsErrorKind.UNAVAILABLE, "ListTasks gave the same page token twice.")
                return
            if not following:
                return
            token = following

    def _read(self, target: Target, method: str, **arguments: Any) -> Mapping[str, Any] | EcsError:
        """The answer of one read, or why there is none."""
        client = None
        try:
            client = self._clients.client(target)
            response: Mapping[str, Any] = getattr(client, method)(**arguments)
        except Exception as error:  # noqa: BLE001 - whatever botocore raises is an answer to the protocol
            trouble = classify_read_error(error)
            if trouble.kind is EcsErrorKind.UNUSABLE_PROFILE and client is not None:
                self._clients.invalidate(target, client)
            return trouble
        return response


class _CallState(threading.local):
    """One thread's RunTask call under way. `deadline` is None between calls."""

    deadline: float | None = None
    sent: bool = False


class _SendGuard:
    """Refuses to send RunTask after the deadline, and knows whether it was sent.

    botocore emits `before-send` in the calling thread, after signing and right before the request goes out.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._call = _CallState()
        self._lock = threading.Lock()
        self._attached: WeakSet[Any] = WeakSet()

    def attach(self, client: Any) -> None:
        """Watch this client's RunTask; once is enough, more does nothing."""
        with self._lock:
            if client in self._attached:
                return
            client.meta.events.register_last("before-send.ecs.RunTask", self._before_send)
            self._attached.add(client)

    @contextmanager
    def until(self, deadline: float) -> Iterator[_CallState]:
        """This thread's next RunTask must be sent before the deadline."""
        self._call.deadline, self._call.sent = deadline, False
        try:
            yield self._call
        finally:
            self._call.deadline = None

    def _before_send(self, **_kwargs: object) -> None:
        deadline = self._call.deadline
        if deadline is None:
            return  # not a call of this gateway's: another one over the same client guards it
        late = self._monotonic() - deadline
        if late > 0:
            raise CallBudgetExceeded(
                f"it was ready {late:.1f} s after the call budget was over (the worker was paused, or the "
                "credentials took long)"
            )
        crash_point("ecs.sending")
        self._call.sent = True
