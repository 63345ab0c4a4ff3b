"""An ECS in memory, whose tasks end as the test says."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ecs_queue.durations import MAX_SECONDS
from ecs_queue.ecs.clients import Target
from ecs_queue.error_text import error_text
from ecs_queue.errors import UsageError
from ecs_queue.findings import Finding, Reporter
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.protocol.ecs_results import (
    DescribeTasksResult,
    EcsError,
    ListTasksResult,
    RunTaskResult,
    RunTaskResultKind,
    StopTaskResult,
)

_MAX_EXIT_CODE = 255


@dataclass(frozen=True, repr=False)
class Task(PayloadRepr):
    """A task that is about to be launched.

    Attributes:
        id: The request.
        launch: 1 for the request's first launch, more when it is launched again.
        command: What its main container runs.
        environment: The variables that the request set for it.
        run_task: All arguments of RunTask.
    """

    id: str
    launch: int
    command: list[str]
    environment: dict[str, str]
    run_task: dict[str, Any]


@dataclass(frozen=True)
class Exit:
    """The container runs for `after` seconds of the test's clock, and ends with this exit code.

    Before, its task is PENDING for `starts_after` seconds, as during the pull of an image.
    """

    code: int = 0
    after: float = 0.0
    starts_after: float = 0.0


@dataclass(frozen=True)
class StartFailure:
    """The task stops before its container runs."""

    reason: str = "CannotPullContainerError: no such image"


@dataclass(frozen=True)
class Interruption:
    """The container runs for `after` seconds, and its host is then taken away, as on Spot."""

    after: float = 0.0


@dataclass(frozen=True)
class Capacity:
    """RunTask is refused, since ECS has no capacity now."""

    reason: str = "Capacity is unavailable at this time"


@dataclass(frozen=True)
class Throttle:
    """RunTask is throttled."""

    reason: str = "Rate exceeded"


_Outcome = Exit | StartFailure | Interruption | Capacity | Throttle
#: What becomes of a task; a number is an exit code.
Outcome = int | _Outcome
OutcomeFunction = Callable[[Task], Outcome]


def succeed(task: Task) -> Outcome:
    """Let every task end with exit code 0."""
    return Exit()


def run_command(task: Task) -> Outcome:
    """Run the task's command on this machine, with the request's variables, and end as it ends.

    A command that cannot be started is a `StartFailure`, as on ECS.
    """
    try:
        ended = subprocess.run(task.command, env={**os.environ, **task.environment}, check=False)  # noqa: S603 - a test's
    except OSError as error:
        return StartFailure(f"CannotStartContainerError: {error_text(error)}")
    return Exit(ended.returncode if ended.returncode >= 0 else 128 - ended.returncode)


def check_outcome(outcome: object) -> _Outcome:
    """Return what a test's function returned; raise `UsageError` for what is no outcome."""
    if isinstance(outcome, int) and not isinstance(outcome, bool):
        outcome = Exit(outcome)
    if not isinstance(outcome, Exit | StartFailure | Interruption | Capacity | Throttle):
        raise UsageError(
            "the function of a MemoryQueue: expected an exit code, Exit, StartFailure, Interruption, Capacity or "
            f"Throttle, found {type(outcome).__name__}"
        )
    if isinstance(outcome, Exit) and not 0 <= outcome.code <= _MAX_EXIT_CODE:
        raise UsageError(f"the function of a MemoryQueue: expected an exit code of 0 to 255, found {outcome.code}")
    if isinstance(outcome, Exit | Interruption) and not 0 <= outcome.after <= MAX_SECONDS:
        raise UsageError(f"the function of a MemoryQueue: after: expected seconds >= 0, found {outcome.after}")
    if isinstance(outcome, Exit) and not 0 <= outcome.starts_after <= MAX_SECONDS:
        raise UsageError(
            f"the function of a MemoryQueue: starts_after: expected seconds >= 0, found {outcome.starts_after}"
        )
    return outcome


@dataclass(repr=False)
class _FakeTask:
    arn: str
    started_by: str
    container_name: str
    outcome: Exit | StartFailure | Interruption
    launched_at: float
    stopped_at: float | None = None
    stop_reason: str = ""
    version: int = 1
    shown_status: str = field(default="PENDING")

    @property
    def starts_at(self) -> float:
        """When the container runs; of a task that never starts, when it stops."""
        return self.launched_at + (self.outcome.starts_after if isinstance(self.outcome, Exit) else 0.0)

    @property
    def ends_at(self) -> float:
        return self.starts_at + (0.0 if isinstance(self.outcome, StartFailure) else self.outcome.after)

    def _has_started(self, now: float) -> bool:
        is_stopped_before = self.stopped_at is not None and self.stopped_at < self.starts_at
        return not isinstance(self.outcome, StartFailure) and now >= self.starts_at and not is_stopped_before

    def describe(self, now: float) -> dict[str, Any]:
        """What DescribeTasks shows."""
        is_over = self.stopped_at is not None or now >= self.ends_at
        status = "STOPPED" if is_over else "RUNNING" if self._has_started(now) else "PENDING"
        if status != self.shown_status:
            self.version += 1
            self.shown_status = status
        container: dict[str, Any] = {"name": self.container_name}
        shown: dict[str, Any] = {
            "taskArn": self.arn,
            "startedBy": self.started_by,
            "lastStatus": status,
            "desiredStatus": "STOPPED" if is_over else "RUNNING",
            "version": self.version,
            "containers": [container],
        }
        if self._has_started(now):
            shown["startedAt"] = self.starts_at
        if is_over:
            shown["stoppedAt"] = self.ends_at if self.stopped_at is None else self.stopped_at
            shown["stopCode"], shown["stoppedReason"], exit_code = self._end()
            container |= {} if exit_code is None else {"exitCode": exit_code}
        return shown

    def _end(self) -> tuple[str, str, int | None]:
        if self.stopped_at is not None:
            return "UserInitiated", self.stop_reason, 143 if self._has_started(self.stopped_at) else None
        if isinstance(self.outcome, StartFailure):
            return "TaskFailedToStart", self.outcome.reason, None
        if isinstance(self.outcome, Interruption):
            return "SpotInterruption", "Your Spot Task was interrupted.", 137
        return "EssentialContainerExited", "Essential container in task exited", self.outcome.code


class MemoryEcs:
    """An `EcsGateway` whose tasks start and end as the test says."""

    def __init__(self, clock: Callable[[], float], main_container: str, outcome: OutcomeFunction) -> None:
        """Let tasks end as `outcome` says, by this clock."""
        self._clock = clock
        self._main_container = main_container
        self.outcome = outcome
        self._tasks: dict[str, _FakeTask] = {}
        self._by_token: dict[str, str] = {}
        self.launched: list[Task] = []

    def next_change(self) -> float | None:
        """Return when the next task starts or ends; None when there is none."""
        tasks = [task for task in self._tasks.values() if task.stopped_at is None]
        moments = (moment for task in tasks for moment in (task.starts_at, task.ends_at))
        return min((moment for moment in moments if moment > self._clock()), default=None)

    def run_task(
        self, target: Target, kwargs: Mapping[str, Any], *, client_token: str, started_by: str, deadline: float
    ) -> RunTaskResult:
        """See `EcsGateway`."""
        if client_token in self._by_token:
            return RunTaskResult(RunTaskResultKind.STARTED, arn=self._by_token[client_token])
        task = self._read_task(kwargs, client_token)
        outcome = check_outcome(self.outcome(task))
        if isinstance(outcome, Capacity):
            return RunTaskResult(RunTaskResultKind.CAPACITY, reason=outcome.reason)
        if isinstance(outcome, Throttle):
            return RunTaskResult(RunTaskResultKind.THROTTLED, reason=outcome.reason)
        self.launched.append(task)
        arn = f"arn:aws:ecs:us-east-1:123456789012:task/{target.cluster}/{len(self.launched):032x}"
        self._tasks[arn] = _FakeTask(arn, started_by, self._main_container, outcome, self._clock())
        self._by_token[client_token] = arn
        return RunTaskResult(RunTaskResultKind.STARTED, arn=arn)

    def describe_tasks(self, target: Target, arns: Sequence[str]) -> DescribeTasksResult:
        """See `EcsGateway`."""
        known = [self._tasks[arn].describe(self._clock()) for arn in arns if arn in self._tasks]
        return DescribeTasksResult(known, [arn for arn in arns if arn not in self._tasks])

    def stop_task(self, target: Target, arn: str, reason: str) -> StopTaskResult:
        """See `EcsGateway`. A running container ends at once, with exit code 143."""
        task = self._tasks.get(arn)
        if task is not None and task.stopped_at is None and self._clock() < task.ends_at:
            task.stopped_at, task.stop_reason = self._clock(), reason
        return StopTaskResult()

    def list_tasks(self, target: Target, started_by: str, family: str) -> ListTasksResult:
        """See `EcsGateway`."""
        return ListTasksResult([arn for arn, task in self._tasks.items() if task.started_by == started_by], None)

    def check_cluster(self, target: Target, reporter: Reporter) -> Finding:
        """See `EcsGateway`."""
        return reporter.ok("aws.cluster", "ACTIVE")

    def default_strategy(self, target: Target) -> tuple[dict[str, Any], ...] | EcsError:
        """See `EcsGateway`."""
        return ()

    def _read_task(self, kwargs: Mapping[str, Any], client_token: str) -> Task:
        record_id, _, launch = client_token.split(".")
        main: Mapping[str, Any] = next(
            container
            for container in kwargs["overrides"]["containerOverrides"]
            if container.get("name") == self._main_container
        )
        environment = {variable["name"]: variable["value"] for variable in main.get("environment", ())}
        return Task(record_id, int(launch), list(main["command"]), environment, dict(kwargs))
