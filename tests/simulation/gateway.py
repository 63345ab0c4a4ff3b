"""The real gateway over a boto3 client that reaches the model of ECS, or does not."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError

from ecs_queue.core.answers import DescribeAnswer, ListAnswer, RunAnswer, StopAnswer
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import BotoEcsGateway
from tests.simulation.ecs import SIGNATURE, ModelEcs, client_error
from tests.simulation.process import Process

#: The time-outs of the default configuration, in seconds.
_CONNECT, _READ = 5.0, 15.0
_URL = "https://ecs.us-east-1.amazonaws.com/"


class SimClient:
    """What `BotoEcsGateway` needs of a boto3 client, for one call."""

    def __init__(self, process: Process, ecs: ModelEcs) -> None:
        self._process = process
        self._stage = process.stage
        self._ecs = ecs
        self._before_send: Callable[[], object] = lambda: None
        self.meta = self
        self.events = self

    def register_last(self, event: str, handler: Callable[..., object]) -> None:
        """The event before RunTask is sent."""
        self._before_send = handler

    def run_task(self, **request: Any) -> dict[str, Any]:
        """Signed, held up now and then, sent, answered or not."""
        started_by = str(request["startedBy"])
        self._step("RunTask is signed")
        signed_at = self._stage.now
        self._step("RunTask is sent")
        self._before_send()
        self._may_fail_to_connect("RunTask", self._stage.faults.run_unsent)
        self._step("RunTask arrives")
        try:
            answer = self._run(signed_at, request)
        except Exception as error:
            self._stage.tell(f"RunTask {started_by} -> {type(error).__name__}: {error}")
            self._step("the answer of RunTask is read")
            raise
        told = "; ".join(task["taskArn"][-2:] for task in answer.get("tasks", ())) or answer.get("failures")
        self._stage.tell(f"RunTask {started_by} -> {told}")
        self._step("the answer of RunTask is read")
        return answer

    def describe_tasks(self, *, cluster: str, tasks: list[str]) -> dict[str, Any]:
        """See `ModelEcs.describe`."""
        self._read("DescribeTasks")
        answer = self._ecs.describe(tasks)
        if self._stage.traced:
            told = [f"{task['taskArn'][-2:]} v{task['version']} {task['lastStatus']}" for task in answer["tasks"]]
            missing = [f"{failure['arn'][-2:]} MISSING" for failure in answer["failures"]]
            self._stage.tell(f"DescribeTasks -> {', '.join(told + missing)}")
        return answer

    def list_tasks(self, *, cluster: str, startedBy: str, desiredStatus: str) -> dict[str, Any]:  # noqa: N803
        """See `ModelEcs.list`."""
        self._read("ListTasks")
        answer = self._ecs.list(startedBy, desiredStatus)
        self._stage.tell(f"ListTasks {startedBy} {desiredStatus} -> {[arn[-2:] for arn in answer['taskArns']]}")
        return answer

    def stop_task(self, *, cluster: str, task: str, reason: str) -> dict[str, Any]:
        """See `ModelEcs.stop`."""
        self._read("StopTask")
        self._stage.tell(f"StopTask {task[-2:]}: {reason}")
        return self._ecs.stop(task)

    def _step(self, what: str) -> None:
        """A lease cannot fence ECS: a worker that is held up around its call is what the protocol is made for."""
        self._process.step(what)
        if self._stage.chance(self._stage.faults.stall):
            rng = self._stage.rng
            self._process.freeze(rng.choice((8.0, 50.0, 500.0)) * rng.uniform(0.5, 3.0), what)

    def _run(self, signed_at: float, request: Mapping[str, Any]) -> dict[str, Any]:
        stage, faults = self._stage, self._stage.faults
        fate = _fate(
            stage.rng,
            (
                ("throttle", faults.throttle),
                ("no_cluster", faults.no_cluster),
                ("lost_before", faults.run_lost_before),
                ("late", faults.run_late),
                ("5xx_before", faults.run_5xx_before),
            ),
        )
        if fate == "throttle":
            raise client_error("RunTask", "ThrottlingException", "Rate exceeded")
        if fate == "no_cluster":
            raise client_error("RunTask", "ClusterNotFoundException", "Cluster not found.")
        if fate == "5xx_before":
            raise client_error("RunTask", "ServerException", "Service Unavailable.", 500)
        if fate == "late":
            left = max(0.0, signed_at + SIGNATURE - stage.now)
            stage.scheduler.after(stage.rng.uniform(0.0, left), lambda: self._arrives_late(signed_at, request))
        if fate:
            self._times_out()
        answer = self._ecs.run(signed_at, request)
        if stage.chance(faults.run_lost_after):
            stage.tell("RunTask has taken effect, its answer is lost")
            self._times_out()
        if stage.chance(faults.run_5xx_after):
            stage.tell("RunTask has taken effect, its answer is a 5xx")
            raise client_error("RunTask", "ServerException", "Service Unavailable.", 500)
        return {} if stage.chance(faults.run_empty) else answer

    def _arrives_late(self, signed_at: float, request: Mapping[str, Any]) -> None:
        self._stage.tell(f"RunTask {request['startedBy']} arrives late")
        try:
            self._ecs.run(signed_at, request)
        except Exception as error:  # noqa: BLE001 - nobody hears the answer
            self._stage.tell(f"nobody hears {error}")

    def _read(self, operation: str) -> None:
        self._may_fail_to_connect(operation, self._stage.faults.read / 2)
        self._process.step(operation)
        if self._stage.chance(self._stage.faults.read):
            if self._stage.chance(0.5):
                raise client_error(operation, "ThrottlingException", "Rate exceeded")
            self._times_out()

    def _may_fail_to_connect(self, operation: str, chance: float) -> None:
        if "ecs" in self._process.cut_off or self._stage.chance(chance):
            self._stage.scheduler.sleep(_CONNECT)
            self._stage.tell(f"{operation} could not be sent")
            raise ConnectTimeoutError(endpoint_url=_URL)

    def _times_out(self) -> None:
        self._stage.scheduler.sleep(_READ)
        raise ReadTimeoutError(endpoint_url=_URL)


class SimGateway:
    """An `EcsGateway`: a real one for each call, because it keeps its deadline by thread, and all jobs share one."""

    def __init__(self, process: Process, ecs: ModelEcs) -> None:
        self._process = process
        self._ecs = ecs

    def run_task(
        self, target: Target, kwargs: Mapping[str, Any], *, client_token: str, started_by: str, deadline: float
    ) -> RunAnswer:
        return self._one().run_task(target, kwargs, client_token=client_token, started_by=started_by, deadline=deadline)

    def describe_tasks(self, target: Target, arns: Sequence[str]) -> DescribeAnswer:
        return self._one().describe_tasks(target, arns)

    def stop_task(self, target: Target, arn: str, reason: str) -> StopAnswer:
        return self._one().stop_task(target, arn, reason)

    def list_tasks(self, target: Target, started_by: str) -> ListAnswer:
        return self._one().list_tasks(target, started_by)

    def check(self, target: Target) -> list[str]:
        return []

    def _one(self) -> BotoEcsGateway:
        clients: Any = _OneClient(SimClient(self._process, self._ecs))
        return BotoEcsGateway(clients, self._process.stage.scheduler.clock)


class _OneClient:
    """What `BotoEcsGateway` needs of `EcsClients`."""

    def __init__(self, client: SimClient) -> None:
        self._client = client

    def client(self, target: Target) -> SimClient:
        return self._client

    def forget(self, target: Target, client: SimClient) -> None:
        """The next call has another one anyway."""


def _fate(rng: random.Random, chances: Sequence[tuple[str, float]]) -> str:
    luck = rng.random()
    for name, chance in chances:
        if luck < chance:
            return name
        luck -= chance
    return ""
