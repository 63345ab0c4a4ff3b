"""A model of Amazon ECS: what it promises (tokens, versions, lists), and what it does not (visibility, answers)."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from tests.simulation.faults import Faults
from tests.simulation.scheduler import Scheduler

#: Stopped tasks and their tokens are forgotten after so long; a failure is repeated for so long. Seconds.
REMEMBERED = 3600.0
#: AWS refuses a call whose signature is older. Seconds.
SIGNATURE = 300.0
#: A task is shown at the latest so long after its start: with the signature's age less than settle_seconds. Seconds.
LATEST_SHOWN = 290.0

View = dict[str, Any]


@dataclass(slots=True)
class Task:
    """`view`: what DescribeTasks shows; `before`: what it showed before the last change. Times by the one clock."""

    arn: str
    started_by: str
    created_at: float
    shown_from: float
    view: View
    before: View = field(default_factory=dict)
    stopped_at: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether it has not stopped."""
        return str(self.view["lastStatus"]) != "STOPPED"

    @property
    def ran(self) -> bool:
        """Whether its program was ever started."""
        return "startedAt" in self.view

    def shown(self, now: float) -> bool:
        """Whether DescribeTasks and ListTasks know it: not yet at once, and not for ever."""
        return now >= self.shown_from and not (self.stopped_at and now - self.stopped_at > REMEMBERED)

    @property
    def stop_code(self) -> str:
        """Why it stopped; "" before."""
        return str(self.view.get("stopCode", ""))


@dataclass(slots=True)
class _Token:
    digest: str
    arn: str = ""
    failures: list[dict[str, str]] = field(default_factory=list)
    until: float = 0.0  # of a failure; a task's token ends with its task


def client_error(operation: str, code: str, message: str, status: int = 400, **more: object) -> ClientError:
    """What botocore raises for an error answer."""
    told: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
        **more,
    }
    return ClientError(told, operation)


class ModelEcs:
    """One cluster. `created(task)` and `changed(task, what)` are told of what happens to its tasks.

    `faults()`: the present mix. Each method is a call as it arrives, and raises the error it answers with.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        rng: random.Random,
        faults: Callable[[], Faults],
        created: Callable[[Task], None],
        changed: Callable[[Task, str], None],
    ) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self._faults = faults
        self._created = created
        self._changed = changed
        self._tokens: dict[str, _Token] = {}
        self._repeats_failures = rng.random() < 0.5
        self.tasks: dict[str, Task] = {}
        self.by_started: dict[str, list[Task]] = {}
        self.agent_failures: dict[str, int] = {}  # startedBy -> how often RunTask answered with a start failure
        self.refusals: dict[str, int] = {}  # startedBy -> how often it answered that it never will

    def run(self, signed_at: float, request: Mapping[str, Any]) -> dict[str, Any]:
        """RunTask."""
        now = self._scheduler.now
        if now - signed_at > SIGNATURE:
            raise client_error("RunTask", "InvalidSignatureException", "Signature expired")
        digest = json.dumps(request, sort_keys=True)
        known = self._known_token(request["clientToken"])
        if known is not None and known.digest != digest:
            raise client_error("RunTask", "ConflictException", "token", resourceIds=[known.arn] if known.arn else [])
        if known is not None and known.arn:
            return {"tasks": [dict(self.tasks[known.arn].view)], "failures": []}
        if known is not None and self._repeats_failures:
            return {"tasks": [], "failures": known.failures}
        no = self._no(request["startedBy"])
        if no is not None:
            self._tokens[request["clientToken"]] = _Token(digest, failures=[no], until=now + REMEMBERED)
            return {"tasks": [], "failures": [no]}
        task = self._start(request["startedBy"])
        self._tokens[request["clientToken"]] = _Token(digest, arn=task.arn)
        return {"tasks": [dict(task.view)], "failures": []}

    def describe(self, arns: list[str]) -> dict[str, Any]:
        """DescribeTasks, now and then of a moment ago."""
        tasks, failures = [], []
        for arn in arns:
            task = self.tasks.get(arn)
            if task is None or not task.shown(self._scheduler.now):
                failures.append({"arn": arn, "reason": "MISSING"})
            elif task.before and self._rng.random() < self._faults().stale:
                tasks.append(dict(task.before))
            else:
                tasks.append(dict(task.view))
        return {"tasks": tasks, "failures": failures}

    def list(self, started_by: str, desired: str) -> dict[str, Any]:
        """ListTasks."""
        found = [task for task in self.by_started.get(started_by, ()) if task.shown(self._scheduler.now)]
        return {"taskArns": [task.arn for task in found if task.view["desiredStatus"] == desired]}

    def stop(self, arn: str) -> dict[str, Any]:
        """StopTask."""
        task = self.tasks.get(arn)
        if task is None or (task.stopped_at and self._scheduler.now - task.stopped_at > REMEMBERED):
            raise client_error("StopTask", "InvalidParameterException", "The referenced task was not found.")
        if task.alive and task.view["desiredStatus"] == "RUNNING":
            self._change(task, desiredStatus="STOPPED", stopCode="UserInitiated")
            self._scheduler.after(self._rng.uniform(0.1, 35.0), lambda: self._end(task, "UserInitiated", 143))
        return {"task": dict(task.view)}

    def _known_token(self, token: str) -> _Token | None:
        known = self._tokens.get(token)
        if known is None:
            return None
        if known.arn:
            stopped_at = self.tasks[known.arn].stopped_at
            over = bool(stopped_at) and self._scheduler.now - stopped_at > REMEMBERED
        else:
            over = self._scheduler.now > known.until
        return None if over else known

    def _no(self, started_by: str) -> dict[str, str] | None:
        faults = self._faults()
        if self._rng.random() < faults.capacity:
            return {"reason": "RESOURCE:CPU"}
        if self._rng.random() < faults.agent:
            self.agent_failures[started_by] = self.agent_failures.get(started_by, 0) + 1
            return {"reason": "AGENT"}
        if self._rng.random() < faults.permanent:
            self.refusals[started_by] = self.refusals.get(started_by, 0) + 1
            raise client_error("RunTask", "InvalidParameterException", "No such subnet.")
        return None

    def _start(self, started_by: str) -> Task:
        rng, now = self._rng, self._scheduler.now
        invisible = rng.random() < self._faults().invisible
        lag = rng.uniform(0.0, LATEST_SHOWN) if invisible else rng.choice((0.0, 0.0, 1.0, 3.0))
        arn = f"arn:aws:ecs:us-east-1:123456789012:task/jobs/{len(self.tasks) + 1:032x}"
        view = {
            "taskArn": arn,
            "startedBy": started_by,
            "lastStatus": "PROVISIONING",
            "desiredStatus": "RUNNING",
            "version": 1,
            "containers": [{"name": "main"}],
        }
        task = Task(arn, started_by, now, now + lag, view)
        self.tasks[arn] = task
        self.by_started.setdefault(started_by, []).append(task)
        self._created(task)
        self._plan_life(task)
        return task

    def _plan_life(self, task: Task) -> None:
        rng, faults = self._rng, self._faults()
        starts_in = rng.choice((0.5, 2.0, 10.0)) * rng.uniform(0.5, 2.0)
        if rng.random() < faults.never_starts:
            self._scheduler.after(starts_in, lambda: self._end(task, "TaskFailedToStart", None))
            return
        self._scheduler.after(starts_in, lambda: self._run(task))
        lasts = rng.choice((1.0, 5.0, 30.0)) * rng.uniform(0.3, 2.0)
        if rng.random() < faults.runs_long:
            lasts = rng.uniform(600.0, 3000.0)
        stop_code, exit_code = "EssentialContainerExited", int(rng.random() < faults.exits_1)
        if rng.random() < faults.interrupted:
            stop_code, exit_code = "SpotInterruption", 137
        self._scheduler.after(starts_in + lasts, lambda: self._end(task, stop_code, exit_code))

    def _run(self, task: Task) -> None:
        if task.alive:
            self._change(task, lastStatus="RUNNING", startedAt=self._scheduler.now)

    def _end(self, task: Task, stop_code: str, exit_code: int | None) -> None:
        if not task.alive:
            return
        task.stopped_at = self._scheduler.now
        never_ran = exit_code is None or not task.ran
        container: View = {"name": "main"} if never_ran else {"name": "main", "exitCode": exit_code}
        reason = "CannotPullContainerError: no such image" if stop_code == "TaskFailedToStart" else stop_code
        self._change(
            task,
            lastStatus="STOPPED",
            desiredStatus="STOPPED",
            stoppedAt=self._scheduler.now,
            stopCode=task.stop_code or stop_code,  # an order to stop names the end whatever the program did
            stoppedReason=reason,
            containers=[container],
        )

    def _change(self, task: Task, **what: object) -> None:
        task.before = dict(task.view)
        task.view.update(what)
        task.view["version"] += 1
        self._changed(task, f"{task.view['lastStatus']} {task.stop_code}")
