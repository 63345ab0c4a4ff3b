"""An ECS in memory that keeps its promises about client tokens, and that fails as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ecs_queue.core.answers import (
    DescribeAnswer,
    Kind,
    ListAnswer,
    ReadTrouble,
    RunAnswer,
    StopAnswer,
    StopKind,
    TroubleKind,
)
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import DESCRIBE_BATCH

Task = dict[str, Any]


class Lost(Enum):
    """A RunTask call whose answer nobody hears, and when it takes effect."""

    BEFORE = "never"
    AFTER = "at once"
    LATER = "when `act_late` is called"
    WITH_5XX = "at once, but ECS answers with a server error"


@dataclass(frozen=True)
class RunCall:
    """One RunTask call as it arrived."""

    target: Target
    kwargs: Mapping[str, Any]
    token: str
    started_by: str
    deadline: float


class FakeEcs:
    """An `EcsGateway`. Thread-safe. `clock`: seconds since the epoch, for the tasks' times.

    `answers`: what the next RunTask calls answer instead of starting a task, in order. `on_run`: called with each
    RunTask before anything else; what it raises is raised.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._by_token: dict[tuple[str, str], tuple[str, str]] = {}
        self.tasks: dict[str, Task] = {}
        self.answers: deque[RunAnswer | Lost] = deque()
        self.on_run: Callable[[RunCall], object] = lambda call: None
        self.calls: list[RunCall] = []
        self.late: list[RunCall] = []
        self.described: list[list[str]] = []
        self.listed: list[str] = []
        self.stopped: list[tuple[str, str]] = []
        self.stop_answers: deque[StopAnswer] = deque()
        self.hidden: set[str] = set()
        self.bad_arns: set[str] = set()
        self.read_trouble: ReadTrouble | None = None
        self.list_trouble: ReadTrouble | None = None

    def run_task(
        self, target: Target, kwargs: Mapping[str, Any], *, client_token: str, started_by: str, deadline: float
    ) -> RunAnswer:
        call = RunCall(target, kwargs, client_token, started_by, deadline)
        self.on_run(call)
        with self._lock:
            self.calls.append(call)
            said = self.answers.popleft() if self.answers else None
            if isinstance(said, RunAnswer):
                return said
            return self._answer(call, said)

    def _answer(self, call: RunCall, said: Lost | None) -> RunAnswer:
        if said is Lost.LATER:
            self.late.append(call)
        elif said is not Lost.BEFORE:
            answer = self._start(call)
            if said is None:
                return answer
        if said is Lost.WITH_5XX:
            return RunAnswer(Kind.ANSWERED_5XX, reason="ServerException")
        return RunAnswer(Kind.AMBIGUOUS, reason="Whether ECS started a task is not known: timed out")

    def act_late(self, call: RunCall) -> None:
        """A call of `late` takes effect."""
        with self._lock:
            self.late.remove(call)
            self._start(call)

    def describe_tasks(self, target: Target, arns: Sequence[str]) -> DescribeAnswer:
        assert len(arns) <= DESCRIBE_BATCH
        if not arns:
            return DescribeAnswer()
        with self._lock:
            self.described.append(list(arns))
            if self.read_trouble is not None:
                return DescribeAnswer(trouble=self.read_trouble)
            if self.bad_arns.intersection(arns):
                return DescribeAnswer(trouble=INVALID)
            shown = [arn for arn in arns if arn in self.tasks and arn not in self.hidden]
            missing = [arn for arn in arns if arn not in shown]
            return DescribeAnswer([dict(self.tasks[arn]) for arn in shown], missing)

    def stop_task(self, target: Target, arn: str, reason: str) -> StopAnswer:
        with self._lock:
            self.stopped.append((arn, reason))
            if self.stop_answers:
                return self.stop_answers.popleft()
            task = self.tasks.get(arn, {"lastStatus": "STOPPED"})
            if task.get("startedAt"):
                self.end(arn, exit_code=143, stop_code="UserInitiated", reason=reason)
            elif task["lastStatus"] != "STOPPED":
                self._move(arn, lastStatus="STOPPED", desiredStatus="STOPPED", stopCode="UserInitiated")
            return StopAnswer(StopKind.OK)

    def list_tasks(self, target: Target, started_by: str) -> ListAnswer:
        with self._lock:
            self.listed.append(started_by)
            found = [arn for arn, task in self.tasks.items() if task["startedBy"] == started_by]
            return ListAnswer([arn for arn in found if arn not in self.hidden], self.list_trouble)

    def check(self, target: Target) -> list[str]:
        return []

    # What happens to a task on ECS.

    def run(self, arn: str) -> None:
        """The container runs."""
        self._move(arn, lastStatus="RUNNING", startedAt=self._clock())

    def end(
        self, arn: str, exit_code: int | None = 0, stop_code: str = "EssentialContainerExited", reason: str = ""
    ) -> None:
        """The container ends, having run."""
        with self._lock:
            task = self.tasks[arn]
            container = {"name": "main"} if exit_code is None else {"name": "main", "exitCode": exit_code}
            self._move(
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
        """The container never runs."""
        self._move(
            arn,
            lastStatus="STOPPED",
            desiredStatus="STOPPED",
            stoppedAt=self._clock(),
            stopCode="TaskFailedToStart",
            stoppedReason="CannotPullContainerError: no such image",
            containers=[{"name": "main"}],
        )

    def interrupt(self, arn: str) -> None:
        """Its host goes away while it runs."""
        self.end(arn, exit_code=137, stop_code="SpotInterruption", reason="Your Spot Task was interrupted.")

    def alive(self) -> list[Task]:
        """The tasks that have not stopped."""
        with self._lock:
            return [task for task in self.tasks.values() if task["lastStatus"] != "STOPPED"]

    def _move(self, arn: str, **what: Any) -> None:
        with self._lock:
            task = self.tasks[arn]
            task.update(what)
            task["version"] += 1

    def _start(self, call: RunCall) -> RunAnswer:
        sent = json.dumps([call.kwargs, call.started_by], sort_keys=True)
        known = self._by_token.get((call.target.cluster, call.token))
        if known is not None:
            if known[1] != sent:
                return RunAnswer(Kind.CONFLICT, reason="token used with other arguments", conflicting=(known[0],))
            return RunAnswer(Kind.STARTED, arn=known[0])
        arn = f"arn:aws:ecs:us-east-1:123456789012:task/{call.target.cluster}/{len(self.tasks) + 1:032x}"
        self._by_token[call.target.cluster, call.token] = arn, sent
        self.add_task(arn, call.started_by)
        return RunAnswer(Kind.STARTED, arn=arn)

    def add_task(self, arn: str, started_by: str) -> None:
        """A task, just started."""
        self.tasks[arn] = {
            "taskArn": arn,
            "startedBy": started_by,
            "lastStatus": "PROVISIONING",
            "desiredStatus": "RUNNING",
            "version": 1,
            "containers": [{"name": "main"}],
        }


INVALID = ReadTrouble(TroubleKind.INVALID, "ECS: one of the ARNs is invalid")
GONE = ReadTrouble(TroubleKind.GONE, "ECS: cluster not found")
THROTTLED = ReadTrouble(TroubleKind.THROTTLED, "ECS: rate exceeded")
DENIED = ReadTrouble(TroubleKind.DENIED, "ECS: not authorized")
