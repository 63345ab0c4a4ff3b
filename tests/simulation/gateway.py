"""The real gateway over a boto3 client that reaches the model of ECS or fails."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError

from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import BotoEcsGateway
from ecs_queue.findings import Finding, Reporter
from ecs_queue.protocol.ecs_results import (
    DescribeTasksResult,
    EcsError,
    ListTasksResult,
    RunTaskResult,
    StopTaskResult,
)
from tests.simulation.ecs import SIGNATURE_SECONDS, SimEcs, make_client_error
from tests.simulation.process import SimProcess

#: The time-outs of the default configuration, in seconds.
_CONNECT, _READ = 5.0, 15.0
#: A cluster that does not exist.
WRONG_CLUSTER = "prdo"
_URL = "https://ecs.us-east-1.amazonaws.com/"


class SimBotoClient:
    """The part of a boto3 client that `BotoEcsGateway` uses, for one call."""

    def __init__(self, process: SimProcess, ecs: SimEcs) -> None:
        self._process = process
        self._context = process.context
        self._ecs = ecs
        self._before_send: Callable[[], object] = lambda: None
        self.meta = self
        self.events = self

    def register_last(self, event: str, handler: Callable[..., object]) -> None:
        """Store the handler that botocore calls before it sends RunTask."""
        self._before_send = handler

    def run_task(self, **request: Any) -> dict[str, Any]:
        """Sign and send the call, with delays; the reply may be lost."""
        started_by = str(request["startedBy"])
        self._step("RunTask is signed")
        signed_at = self._context.now
        self._step("RunTask is sent")
        self._before_send()
        self._connect("RunTask", self._context.faults.run_task_unsent)
        self._step("RunTask arrives")
        try:
            reply = self._run_task(signed_at, request)
        except Exception as error:
            self._context.trace(f"RunTask {started_by} -> {type(error).__name__}: {error}")
            self._step("the reply of RunTask is read")
            raise
        outcome = "; ".join(task["taskArn"][-2:] for task in reply.get("tasks", ())) or reply.get("failures")
        self._context.trace(f"RunTask {started_by} -> {outcome}")
        self._step("the reply of RunTask is read")
        return reply

    def describe_tasks(self, *, cluster: str, tasks: list[str]) -> dict[str, Any]:
        """See `SimEcs.describe_tasks`."""
        self._read_call("DescribeTasks")
        reply = self._ecs.describe_tasks(tasks)
        if self._context.is_traced:
            shown = [f"{task['taskArn'][-2:]} v{task['version']} {task['lastStatus']}" for task in reply["tasks"]]
            missing = [f"{failure['arn'][-2:]} MISSING" for failure in reply["failures"]]
            self._context.trace(f"DescribeTasks -> {', '.join(shown + missing)}")
        return reply

    def list_tasks(
        self,
        *,
        cluster: str,
        startedBy: str = "",  # noqa: N803
        desiredStatus: str = "",  # noqa: N803
        family: str = "",
    ) -> dict[str, Any]:
        """See `SimEcs.list_tasks`."""
        self._read_call("ListTasks")
        if cluster == WRONG_CLUSTER:
            raise make_client_error("ListTasks", "ClusterNotFoundException", "Cluster not found.")
        reply = self._ecs.list_tasks(startedBy, desiredStatus, family)
        self._context.trace(
            f"ListTasks {startedBy or family} {desiredStatus} -> {[arn[-2:] for arn in reply['taskArns']]}"
        )
        return reply

    def stop_task(self, *, cluster: str, task: str, reason: str) -> dict[str, Any]:
        """See `SimEcs.stop_task`."""
        self._read_call("StopTask")
        self._context.trace(f"StopTask {task[-2:]}: {reason}")
        return self._ecs.stop_task(task, reason)

    def _step(self, what: str) -> None:
        """Delay the worker around its call: a lease cannot fence ECS, so the protocol must handle this."""
        self._process.step(what)
        if self._context.happens(self._context.faults.freeze_around_run_task):
            rng = self._context.rng
            self._process.freeze(rng.choice((8.0, 50.0, 500.0)) * rng.uniform(0.5, 3.0), what)

    def _run_task(self, signed_at: float, request: Mapping[str, Any]) -> dict[str, Any]:
        context, faults = self._context, self._context.faults
        fault = _draw_fault(
            context.rng,
            (
                ("throttle", faults.throttle),
                ("no_cluster", faults.no_cluster),
                ("denied", faults.denied),
                ("lost_before", faults.run_task_lost_before_effect),
                ("late", faults.run_task_late),
                ("5xx_before", faults.run_task_5xx_before_effect),
            ),
        )
        if fault == "throttle":
            raise make_client_error("RunTask", "ThrottlingException", "Rate exceeded")
        if fault == "denied":
            raise make_client_error("RunTask", "AccessDeniedException", "not authorized to perform: ecs:RunTask")
        if fault == "no_cluster" or request["cluster"] == WRONG_CLUSTER:
            raise make_client_error("RunTask", "ClusterNotFoundException", "Cluster not found.")
        if fault == "5xx_before":
            raise make_client_error("RunTask", "ServerException", "Service Unavailable.", 500)
        if fault == "late":
            left = max(0.0, signed_at + SIGNATURE_SECONDS - context.now)
            context.scheduler.call_after(context.rng.uniform(0.0, left), lambda: self._arrive_late(signed_at, request))
        if fault:
            self._time_out()
        reply = self._ecs.run_task(signed_at, request)
        if context.happens(faults.run_task_lost_after_effect):
            context.trace("RunTask has taken effect, the reply is lost")
            self._time_out()
        if context.happens(faults.run_task_5xx_after_effect):
            context.trace("RunTask has taken effect, the reply is a 5xx")
            raise make_client_error("RunTask", "ServerException", "Service Unavailable.", 500)
        return {} if context.happens(faults.run_task_empty) else reply

    def _arrive_late(self, signed_at: float, request: Mapping[str, Any]) -> None:
        self._context.trace(f"RunTask {request['startedBy']} arrives late")
        try:
            self._ecs.run_task(signed_at, request)
        except Exception as error:  # noqa: BLE001 - no process gets the reply
            self._context.trace(f"no process gets {error}")

    def _read_call(self, operation: str) -> None:
        self._connect(operation, self._context.faults.read_error / 2)
        self._process.step(operation)
        if self._context.happens(self._context.faults.read_error):
            if self._context.happens(0.5):
                raise make_client_error(operation, "ThrottlingException", "Rate exceeded")
            self._time_out()

    def _connect(self, operation: str, probability: float) -> None:
        if "ecs" in self._process.unreachable or self._context.happens(probability):
            self._context.scheduler.sleep(_CONNECT)
            self._context.trace(f"{operation} could not be sent")
            raise ConnectTimeoutError(endpoint_url=_URL)

    def _time_out(self) -> None:
        self._context.scheduler.sleep(_READ)
        raise ReadTimeoutError(endpoint_url=_URL)


class SimGateway:
    """An `EcsGateway`. Each call uses a new real one, which keeps deadlines by (real) thread."""

    def __init__(self, process: SimProcess, ecs: SimEcs) -> None:
        self._process = process
        self._ecs = ecs

    def run_task(
        self, target: Target, kwargs: Mapping[str, Any], *, client_token: str, started_by: str, deadline: float
    ) -> RunTaskResult:
        return self._make_gateway().run_task(
            target, kwargs, client_token=client_token, started_by=started_by, deadline=deadline
        )

    def describe_tasks(self, target: Target, arns: Sequence[str]) -> DescribeTasksResult:
        return self._make_gateway().describe_tasks(target, arns)

    def stop_task(self, target: Target, arn: str, reason: str) -> StopTaskResult:
        return self._make_gateway().stop_task(target, arn, reason)

    def list_tasks(self, target: Target, started_by: str, family: str) -> ListTasksResult:
        return self._make_gateway().list_tasks(target, started_by, family)

    def check_cluster(self, target: Target, reporter: Reporter) -> Finding:
        return reporter.ok("aws.cluster", "ACTIVE")

    def default_strategy(self, target: Target) -> tuple[dict[str, Any], ...] | EcsError:
        return ()

    def _make_gateway(self) -> BotoEcsGateway:
        clients: Any = _SingleClient(SimBotoClient(self._process, self._ecs))
        return BotoEcsGateway(clients, self._process.context.scheduler.clock)


class _SingleClient:
    """The part of `EcsClients` that `BotoEcsGateway` uses."""

    def __init__(self, client: SimBotoClient) -> None:
        self._client = client

    def client(self, target: Target) -> SimBotoClient:
        return self._client

    def invalidate(self, target: Target, client: SimBotoClient) -> None:
        """The next call has a new client anyway."""


def _draw_fault(rng: random.Random, probabilities: Sequence[tuple[str, float]]) -> str:
    draw = rng.random()
    for name, probability in probabilities:
        if draw < probability:
            return name
        draw -= probability
    return ""
