"""A model of Amazon ECS: it guarantees tokens and lists; neither visibility nor replies nor that versions grow."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec
from botocore.exceptions import ClientError

from ecs_queue.protocol.observation import STOP_TASK_REASON
from ecs_queue.protocol.record import STOPPED_BY_START_TIMEOUT
from ecs_queue.runs.runner_options import OPTIONS_VARIABLE, RunnerOptions
from tests.simulation.faults import SimFaults
from tests.simulation.scheduler import SimScheduler

#: Seconds after which ECS forgets stopped tasks and their tokens, and stops repeating a failure.
RETENTION_SECONDS = 3600.0
#: Seconds after which AWS refuses a signed call.
SIGNATURE_SECONDS = 300.0
#: The most seconds until a new task is visible: with the signature's age it is less than settle_seconds.
MAX_VISIBILITY_LAG = 290.0

Description = dict[str, Any]

#: How the version of a task grows with each change: as on ECS, or as on endpoints that leave it at 1 or give none.
VersionGrowth = Literal["grows", "constant", "absent"]
_VERSION_GROWTHS: tuple[VersionGrowth, ...] = ("constant", "absent", "grows")
_VERSION_GROWTH_WEIGHTS = (1, 1, 8)


def draw_version_growth(seed: int) -> VersionGrowth:
    """Draw a seed's. Drawn apart, so that the other seeds stay the same."""
    return random.Random(f"versions {seed}").choices(_VERSION_GROWTHS, _VERSION_GROWTH_WEIGHTS)[0]


@dataclass(slots=True)
class SimTask:
    """A task. DescribeTasks returns `description`, or for a while still the `previous_description`."""

    arn: str
    started_by: str
    created_at: float
    visible_from: float
    description: Description
    previous_description: Description = field(default_factory=dict)
    stopped_at: float = 0.0
    lacked_capacity: bool = False
    runner_options: RunnerOptions | None = None
    stop_ordered_at: float = 0.0
    launch_type: str = ""

    @property
    def has_start_timed_out(self) -> bool:
        """Whether StopTask was called for it by its start timeout."""
        return self.description.get("stoppedReason") == STOP_TASK_REASON % STOPPED_BY_START_TIMEOUT

    @property
    def is_running(self) -> bool:
        """Whether it has not stopped."""
        return str(self.description["lastStatus"]) != "STOPPED"

    @property
    def has_run(self) -> bool:
        """Whether its program ever started."""
        return "startedAt" in self.description

    def is_visible(self, now: float) -> bool:
        """Whether DescribeTasks and ListTasks return it: from a while after its creation to a while after its end."""
        return now >= self.visible_from and not (self.stopped_at and now - self.stopped_at > RETENTION_SECONDS)

    @property
    def stop_code(self) -> str:
        """Why it stopped; "" before."""
        return str(self.description.get("stopCode", ""))


@dataclass(slots=True)
class _ClientToken:
    digest: str
    arn: str = ""
    failures: list[dict[str, str]] = field(default_factory=list)
    expires_at: float = 0.0  # of a failure; a task's token ends with its task


def make_client_error(operation: str, code: str, message: str, status: int = 400, **members: object) -> ClientError:
    """Return what botocore raises for an error reply."""
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
        **members,
    }
    return ClientError(response, operation)


class SimRunners(Protocol):
    """What happens in the containers of runners."""

    def start(self, task: SimTask, options: RunnerOptions) -> None:
        """The container of the task has started."""
        ...

    def terminate(self, task: SimTask) -> None:
        """ECS sends SIGTERM to the container's process."""
        ...

    def task_ended(self, task: SimTask) -> None:
        """The task has stopped; whatever ran in it is gone."""
        ...

    def on_stop_task(self, task: SimTask, reason: str) -> None:
        """StopTask is called by ecs-queue."""
        ...

    def starts_two_tasks(self, task: SimTask) -> bool:
        """Draw whether the RunTask call that has started this task starts another one."""
        ...


class SimEcs:
    """One cluster. Each method is one call as it arrives; it raises the error of the reply.

    Args:
        scheduler: The simulated time.
        rng: The randomness of the simulation.
        faults: Returns the current fault probabilities.
        on_created: Called with each new task.
        on_changed: Called with each changed task and a description of the change.
        version_growth: What a change does to a task's version.

    Attributes:
        runners: The processes of runners; None: no task is one.
    """

    runners: SimRunners | None = None

    def __init__(
        self,
        scheduler: SimScheduler,
        rng: random.Random,
        faults: Callable[[], SimFaults],
        on_created: Callable[[SimTask], None],
        on_changed: Callable[[SimTask, str], None],
        version_growth: VersionGrowth = "grows",
    ) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self._faults = faults
        self._on_created = on_created
        self._on_changed = on_changed
        self._version_growth = version_growth
        self._tokens: dict[str, _ClientToken] = {}
        self._repeats_failures = rng.random() < 0.5
        self.takes_started_by_alone = rng.random() < 0.3
        self.tasks: dict[str, SimTask] = {}
        self.tasks_by_started_by: dict[str, list[SimTask]] = {}
        self.start_failures: dict[str, int] = {}  # startedBy -> start failures returned by RunTask
        self.capacity_events = 0  # refusals for capacity, and interruptions
        self.refusals: dict[str, int] = {}  # startedBy -> permanent errors returned by RunTask

    def run_task(self, signed_at: float, request: Mapping[str, Any]) -> dict[str, Any]:
        """RunTask."""
        now = self._scheduler.now
        if now - signed_at > SIGNATURE_SECONDS:
            raise make_client_error("RunTask", "InvalidSignatureException", "Signature expired")
        digest = json.dumps(request, sort_keys=True)
        known = self._known_token(request["clientToken"])
        if known is not None and known.digest != digest:
            raise make_client_error(
                "RunTask", "ConflictException", "token", resourceIds=[known.arn] if known.arn else []
            )
        if known is not None and known.arn:
            return {"tasks": [dict(self.tasks[known.arn].description)], "failures": []}
        if known is not None and self._repeats_failures:
            return {"tasks": [], "failures": known.failures}
        failure = self._draw_failure(request["startedBy"], may_lack_capacity=request.get("launchType") != "EC2")
        if failure is not None:
            self._tokens[request["clientToken"]] = _ClientToken(
                digest, failures=[failure], expires_at=now + RETENTION_SECONDS
            )
            return {"tasks": [], "failures": [failure]}
        task = self._start_task(request)
        if task.runner_options is not None and self.runners is not None and self.runners.starts_two_tasks(task):
            task = self._rng.choice((task, self._start_task(request)))
        self._tokens[request["clientToken"]] = _ClientToken(digest, arn=task.arn)
        return {"tasks": [dict(task.description)], "failures": []}

    def describe_tasks(self, arns: list[str]) -> dict[str, Any]:
        """DescribeTasks. Some replies are outdated."""
        tasks, failures = [], []
        for arn in arns:
            task = self.tasks.get(arn)
            if task is None or not task.is_visible(self._scheduler.now):
                failures.append({"arn": arn, "reason": "MISSING"})
            elif task.previous_description and self._rng.random() < self._faults().stale_read:
                tasks.append(dict(task.previous_description))
            else:
                tasks.append(dict(task.description))
        return {"tasks": tasks, "failures": failures}

    def list_tasks(self, started_by: str, desired: str, family: str = "") -> dict[str, Any]:
        """ListTasks. Some endpoints take startedBy only alone, as AWS's reference says; that lists RUNNING tasks."""
        if started_by and desired and self.takes_started_by_alone:
            raise make_client_error("ListTasks", "InvalidParameterException", "startedBy must be the only filter")
        known = self.tasks.values() if family else self.tasks_by_started_by.get(started_by, ())
        tasks = [task for task in known if task.is_visible(self._scheduler.now)]
        wanted = desired or "RUNNING"
        return {"taskArns": [task.arn for task in tasks if task.description["desiredStatus"] == wanted]}

    def stop_task(self, arn: str, reason: str = "") -> dict[str, Any]:
        """StopTask. With a `reason` ecs-queue calls it, else an operator by hand."""
        task = self.tasks.get(arn)
        if task is None or (task.stopped_at and self._scheduler.now - task.stopped_at > RETENTION_SECONDS):
            raise make_client_error("StopTask", "InvalidParameterException", "The referenced task was not tasks.")
        if task.runner_options is not None and self.runners is not None:
            if reason:
                self.runners.on_stop_task(task, reason)
            self._stop_runner(task, "UserInitiated", self._rng.uniform(0.1, 35.0))
        elif task.is_running and task.description["desiredStatus"] == "RUNNING":
            self._update_task(task, desiredStatus="STOPPED", stopCode="UserInitiated", stoppedReason=reason)
            task.stop_ordered_at = self._scheduler.now
            self._scheduler.call_after(self._rng.uniform(0.1, 35.0), lambda: self._end_task(task, "UserInitiated", 143))
        return {"task": dict(task.description)}

    def stop_by_hand(self, task: SimTask) -> None:
        """A user stops the task of a runner with StopTask."""
        self.stop_task(task.arn)

    def interrupt(self, task: SimTask) -> None:
        """Take the host of a runner's task back (Spot)."""
        self._stop_runner(task, "SpotInterruption", self._rng.uniform(1.0, 120.0))

    def end_runner(self, task: SimTask, exit_code: int) -> None:
        """The container's process has ended."""
        self._end_task(task, "EssentialContainerExited", exit_code)

    def _stop_runner(self, task: SimTask, stop_code: str, seconds: float) -> None:
        """SIGTERM, and SIGKILL after some seconds."""
        if task.is_running and task.description["desiredStatus"] == "RUNNING":
            self._update_task(task, desiredStatus="STOPPED", stopCode=stop_code)
            if self.runners is not None:
                self.runners.terminate(task)
            self._scheduler.call_after(seconds, lambda: self._end_task(task, stop_code, 137))

    def _known_token(self, token: str) -> _ClientToken | None:
        known = self._tokens.get(token)
        if known is None:
            return None
        if known.arn:
            stopped_at = self.tasks[known.arn].stopped_at
            over = bool(stopped_at) and self._scheduler.now - stopped_at > RETENTION_SECONDS
        else:
            over = self._scheduler.now > known.expires_at
        return None if over else known

    def _draw_failure(self, started_by: str, *, may_lack_capacity: bool) -> dict[str, str] | None:
        faults = self._faults()
        if self._rng.random() < faults.capacity and may_lack_capacity:
            self.capacity_events += 1
            return {"reason": self._rng.choice(("RESOURCE:CPU", "AGENT"))}
        if self._rng.random() < faults.start_refused:
            self.start_failures[started_by] = self.start_failures.get(started_by, 0) + 1
            return {"reason": "SOMETHING NEW"}
        if self._rng.random() < faults.permanent:
            self.refusals[started_by] = self.refusals.get(started_by, 0) + 1
            raise make_client_error("RunTask", "InvalidParameterException", "No such subnet.")
        return None

    def _start_task(self, request: Mapping[str, Any]) -> SimTask:
        rng, now, started_by = self._rng, self._scheduler.now, str(request["startedBy"])
        invisible = rng.random() < self._faults().invisible
        lag = rng.uniform(0.0, MAX_VISIBILITY_LAG) if invisible else rng.choice((0.0, 0.0, 1.0, 3.0))
        arn = f"arn:aws:ecs:us-east-1:123456789012:task/jobs/{len(self.tasks) + 1:032x}"
        description = {
            "taskArn": arn,
            "startedBy": started_by,
            "lastStatus": "PROVISIONING",
            "desiredStatus": "RUNNING",
            "version": 0 if self._version_growth == "absent" else 1,
            "containers": [{"name": "main"}],
        }
        task = SimTask(arn, started_by, now, now + lag, description, runner_options=_read_runner_options(request))
        task.launch_type = str(request.get("launchType", ""))
        self.tasks[arn] = task
        self.tasks_by_started_by.setdefault(started_by, []).append(task)
        self._on_created(task)
        self._schedule_life(task)
        return task

    def _schedule_life(self, task: SimTask) -> None:
        rng, faults = self._rng, self._faults()
        starts_in = rng.choice((0.5, 2.0, 10.0)) * rng.uniform(0.5, 2.0)
        if faults.stays_pending and rng.random() < faults.stays_pending:
            return  # only StopTask ends it
        if rng.random() < faults.never_starts:
            self._scheduler.call_after(starts_in, lambda: self._end_task(task, "TaskFailedToStart", None))
            return
        if rng.random() < faults.capacity_stop and task.launch_type != "EC2":
            self._scheduler.call_after(starts_in, lambda: self._end_without_capacity(task))
            return
        self._scheduler.call_after(starts_in, lambda: self._run_container(task))
        if task.runner_options is not None:
            return  # it lasts as long as its process
        lasts = rng.choice((1.0, 5.0, 30.0)) * rng.uniform(0.3, 2.0)
        if rng.random() < faults.runs_long:
            lasts = rng.uniform(600.0, 3000.0)
        stop_code, exit_code = "EssentialContainerExited", int(rng.random() < faults.exits_1)
        if rng.random() < faults.interrupted and task.launch_type != "EC2":
            stop_code, exit_code = "SpotInterruption", 137
        self._scheduler.call_after(starts_in + lasts, lambda: self._end_task(task, stop_code, exit_code))

    def _run_container(self, task: SimTask) -> None:
        if task.runner_options is not None and task.description["desiredStatus"] != "RUNNING":
            return
        if task.is_running:
            self._update_task(task, lastStatus="RUNNING", startedAt=self._scheduler.now)
            if task.runner_options is not None and self.runners is not None:
                self.runners.start(task, task.runner_options)

    def _end_without_capacity(self, task: SimTask) -> None:
        task.lacked_capacity = task.is_running
        self.capacity_events += 1
        reason = self._rng.choice(("Capacity is unavailable at this time", "TaskFailedToStart: RESOURCE:MEMORY"))
        self._end_task(task, "TaskFailedToStart", None, reason)

    def _end_task(self, task: SimTask, stop_code: str, exit_code: int | None, reason: str = "") -> None:
        if not task.is_running:
            return
        task.stopped_at = self._scheduler.now
        self.capacity_events += stop_code == "SpotInterruption"
        never_ran = exit_code is None or not task.has_run
        container: Description = {"name": "main"} if never_ran else {"name": "main", "exitCode": exit_code}
        default_reason = "CannotPullContainerError: no such image" if stop_code == "TaskFailedToStart" else stop_code
        self._update_task(
            task,
            lastStatus="STOPPED",
            desiredStatus="STOPPED",
            stoppedAt=self._scheduler.now,
            stopCode=task.stop_code or stop_code,  # a StopTask call determines the stop code, whatever the program did
            stoppedReason=task.description.get("stoppedReason") or reason or default_reason,
            containers=[container],
        )
        if task.runner_options is not None and self.runners is not None:
            self.runners.task_ended(task)

    def _update_task(self, task: SimTask, **what: object) -> None:
        task.previous_description = dict(task.description)
        task.description.update(what)
        task.description["version"] += self._version_growth == "grows"
        self._on_changed(task, f"{task.description['lastStatus']} {task.stop_code}")


def _read_runner_options(request: Mapping[str, Any]) -> RunnerOptions | None:
    """What a launcher passes to a runner; None if the task is a request's own."""
    for override in request.get("overrides", {}).get("containerOverrides", ()):
        for variable in override.get("environment", ()):
            if variable["name"] == OPTIONS_VARIABLE:
                return msgspec.json.decode(variable["value"], type=RunnerOptions)
    return None
