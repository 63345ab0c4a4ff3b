"""An ECS in memory that honors client tokens and fails as a test requests."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import DESCRIBE_BATCH_SIZE
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

Task = dict[str, Any]


class LostResult(Enum):
    """A RunTask call whose reply is lost, by the time of its effect."""

    NO_EFFECT = "never"
    IMMEDIATE = "at once"
    DELAYED = "when `apply_delayed` is called"
    SERVER_ERROR = "at once, but ECS returns a server error"


@dataclass(frozen=True)
class RunTaskCall:
    """One RunTask call as it arrived."""

    target: Target
    arguments: Mapping[str, Any]
    client_token: str
    started_by: str
    deadline: float


class FakeEcs:
    """An `EcsGateway` in memory. Thread-safe.

    Attributes:
        run_task_results: The results of the next RunTask calls, in order, in place of a started task.
        on_run_task: Called with each RunTask call before anything else. Its errors are raised to the caller.
        first_version, version_step: A task's version, and what each change adds to it.
    """

    first_version = 1
    version_step = 1

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._by_token: dict[tuple[str, str], tuple[str, str]] = {}
        self.tasks: dict[str, Task] = {}
        self.run_task_results: deque[RunTaskResult | LostResult] = deque()
        self.on_run_task: Callable[[RunTaskCall], object] = lambda call: None
        self.run_task_calls: list[RunTaskCall] = []
        self.delayed_calls: list[RunTaskCall] = []
        self.describe_calls: list[list[str]] = []
        self.list_calls: list[str] = []
        self.listed_families: list[str] = []
        self.stop_calls: list[tuple[str, str]] = []
        self.stop_task_results: deque[StopTaskResult] = deque()
        self.hidden_arns: set[str] = set()
        self.invalid_arns: set[str] = set()
        self.describe_error: EcsError | None = None
        self.list_error: EcsError | None = None

    def run_task(
        self, target: Target, kwargs: Mapping[str, Any], *, client_token: str, started_by: str, deadline: float
    ) -> RunTaskResult:
        call = RunTaskCall(target, kwargs, client_token, started_by, deadline)
        self.on_run_task(call)
        with self._lock:
            self.run_task_calls.append(call)
            scripted = self.run_task_results.popleft() if self.run_task_results else None
            if isinstance(scripted, RunTaskResult):
                return scripted
            return self._result_of_call(call, scripted)

    def _result_of_call(self, call: RunTaskCall, scripted: LostResult | None) -> RunTaskResult:
        if scripted is LostResult.DELAYED:
            self.delayed_calls.append(call)
        elif scripted is not LostResult.NO_EFFECT:
            result = self._start_task(call)
            if scripted is None:
                return result
        if scripted is LostResult.SERVER_ERROR:
            return RunTaskResult(RunTaskResultKind.ANSWERED_5XX, reason="ServerException")
        return RunTaskResult(RunTaskResultKind.AMBIGUOUS, reason="Whether ECS started a task is not known: timed out")

    def apply_delayed(self, call: RunTaskCall) -> None:
        """Let a late call take effect."""
        with self._lock:
            self.delayed_calls.remove(call)
            self._start_task(call)

    def describe_tasks(self, target: Target, arns: Sequence[str]) -> DescribeTasksResult:
        assert len(arns) <= DESCRIBE_BATCH_SIZE
        if not arns:
            return DescribeTasksResult()
        with self._lock:
            self.describe_calls.append(list(arns))
            if self.describe_error is not None:
                return DescribeTasksResult(error=self.describe_error)
            if self.invalid_arns.intersection(arns):
                return DescribeTasksResult(error=INVALID_ARN)
            shown = [arn for arn in arns if arn in self.tasks and arn not in self.hidden_arns]
            missing = [arn for arn in arns if arn not in shown]
            return DescribeTasksResult([dict(self.tasks[arn]) for arn in shown], missing)

    def stop_task(self, target: Target, arn: str, reason: str) -> StopTaskResult:
        with self._lock:
            self.stop_calls.append((arn, reason))
            if self.stop_task_results:
                return self.stop_task_results.popleft()
            task = self.tasks.get(arn, {"lastStatus": "STOPPED"})
            if task.get("startedAt"):
                self.finish(arn, exit_code=143, stop_code="UserInitiated", reason=reason)
            elif task["lastStatus"] != "STOPPED":
                self._update_task(
                    arn, lastStatus="STOPPED", desiredStatus="STOPPED", stopCode="UserInitiated", stoppedReason=reason
                )
            return StopTaskResult()

    def list_tasks(self, target: Target, started_by: str, family: str) -> ListTasksResult:
        with self._lock:
            self.list_calls.append(started_by)
            self.listed_families.append(family)
            found = [arn for arn, task in self.tasks.items() if task["startedBy"] == started_by]
            return ListTasksResult([arn for arn in found if arn not in self.hidden_arns], self.list_error)

    def check_cluster(self, target: Target, reporter: Reporter) -> Finding:
        return reporter.ok("aws.cluster", "ACTIVE")

    def default_strategy(self, target: Target) -> tuple[dict[str, Any], ...] | EcsError:
        return ()

    # What happens to a task on ECS.

    def mark_running(self, arn: str) -> None:
        """Start the container."""
        self._update_task(arn, lastStatus="RUNNING", startedAt=self._clock())

    def finish(
        self, arn: str, exit_code: int | None = 0, stop_code: str = "EssentialContainerExited", reason: str = ""
    ) -> None:
        """End the container after it ran."""
        with self._lock:
            task = self.tasks[arn]
            container = {"name": "main"} if exit_code is None else {"name": "main", "exitCode": exit_code}
            self._update_task(
                arn,
                lastStatus="STOPPED",
                desiredStatus="STOPPED",
                startedAt=task.get("startedAt") or self._clock(),
                stoppedAt=self._clock(),
                stopCode=stop_code,
                stoppedReason=reason or "Essential container in task exited",
                containers=[container],
            )

    def fail_to_start(self, arn: str) -> None:
        """Stop the task before its container ran."""
        self._update_task(
            arn,
            lastStatus="STOPPED",
            desiredStatus="STOPPED",
            stoppedAt=self._clock(),
            stopCode="TaskFailedToStart",
            stoppedReason="CannotPullContainerError: no such image",
            containers=[{"name": "main"}],
        )

    def interrupt(self, arn: str) -> None:
        """Stop the task because its host was lost."""
        self.finish(arn, exit_code=137, stop_code="SpotInterruption", reason="Your Spot Task was interrupted.")

    def live_tasks(self) -> list[Task]:
        """Return the tasks that have not stopped."""
        with self._lock:
            return [task for task in self.tasks.values() if task["lastStatus"] != "STOPPED"]

    def _update_task(self, arn: str, **what: Any) -> None:
        with self._lock:
            task = self.tasks[arn]
            task.update(what)
            task["version"] += self.version_step

    def _start_task(self, call: RunTaskCall) -> RunTaskResult:
        sent = json.dumps([call.arguments, call.started_by], sort_keys=True)
        known = self._by_token.get((call.target.cluster, call.client_token))
        if known is not None:
            if known[1] != sent:
                return RunTaskResult(
                    RunTaskResultKind.CONFLICT, reason="token used with other arguments", conflicting_arns=(known[0],)
                )
            return RunTaskResult(RunTaskResultKind.STARTED, arn=known[0])
        arn = f"arn:aws:ecs:us-east-1:123456789012:task/{call.target.cluster}/{len(self.tasks) + 1:032x}"
        self._by_token[call.target.cluster, call.client_token] = arn, sent
        self.add_task(arn, call.started_by)
        return RunTaskResult(RunTaskResultKind.STARTED, arn=arn)

    def add_task(self, arn: str, started_by: str) -> None:
        """Return the description of a new task."""
        self.tasks[arn] = {
            "taskArn": arn,
            "startedBy": started_by,
            "lastStatus": "PROVISIONING",
            "desiredStatus": "RUNNING",
            "version": self.first_version,
            "containers": [{"name": "main"}],
        }


INVALID_ARN = EcsError(EcsErrorKind.INVALID, "ECS: one of the ARNs is invalid")
CLUSTER_NOT_FOUND = EcsError(EcsErrorKind.CLUSTER_NOT_FOUND, "ECS: cluster not found")
THROTTLED = EcsError(EcsErrorKind.THROTTLED, "ECS: rate exceeded")
DENIED = EcsError(EcsErrorKind.DENIED, "ECS: not authorized")
