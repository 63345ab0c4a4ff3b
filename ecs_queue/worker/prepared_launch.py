"""Prepares what RunTask would be given for a request, before its record is claimed."""

from __future__ import annotations

from dataclasses import dataclass

from ecs_queue.broker.base import Delivery
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import ConfigError, PermanentError, UndecodableMessage
from ecs_queue.messages import envelope
from ecs_queue.messages.envelope import TaskRequest
from ecs_queue.protocol.operations import ClaimRequest
from ecs_queue.runtask.launch_spec import LaunchSpec, args_scope, build_launch_spec
from ecs_queue.tasks import EcsQueuedTask
from ecs_queue.worker.context import WorkerContext


@dataclass(frozen=True, slots=True, repr=False)
class PreparedLaunch:
    """One launch of a task, whose key is its request's id, and the arguments that a claim would freeze.

    Attributes:
        spec: None when nothing can ever be sent; `invalid_reason` says why.
        args: The encoded `spec`.
        nonce: With `launch` the only launch that `args` are good for; "" and 0: any.
    """

    task: EcsQueuedTask
    target: Target
    spec: LaunchSpec | None = None
    args: str = ""
    invalid_reason: str = ""
    nonce: str = ""
    launch: int = 0

    def build_claim_request(self, context: WorkerContext) -> ClaimRequest:
        """Return a claim with these arguments and a new token."""
        spec = self.spec
        return ClaimRequest(
            claim=context.new_id(),
            worker=context.worker_name,
            args=self.args,
            target=self.target.encode(),
            container_name=(spec and spec.container_name) or "",
            max_attempts=spec.max_attempts if spec else 0,
            spec_version=spec.v if spec else 0,
            queue_limit=context.config.profile(self.task.queue).max_in_flight,
            nonce=self.nonce,
            launch=self.launch,
        )


def receive_request(context: WorkerContext, delivery: Delivery) -> TaskRequest:
    """Return the request of a message.

    Raises:
        UndecodableMessage: the message belongs to the dead letters.
    """
    request = envelope.decode_request(delivery.body, context.keyring)
    if request.queue != delivery.queue:
        # A client that may write to one queue must not get at the profile of another.
        raise UndecodableMessage(f"it names the queue {request.queue}")
    context.telemetry.emit("request.received", id=request.id, queue=request.queue)
    return request


def prepare_launch(context: WorkerContext, task: EcsQueuedTask, nonce: str, launch: int) -> PreparedLaunch | None:
    """Return what would be sent for a queued task.

    Returns:
        None when the queue's profile is unusable: its circuit breaker opens and the request waits.
    """
    profile = context.config.profile(task.queue)
    try:
        target = context.target_for(task.queue)
    except ConfigError as error:
        context.circuit_breakers.open(task.queue, str(error))
        return None
    try:
        spec = build_launch_spec(profile, profile.max_run_task_attempts, task)
        if context.keyring.is_empty:
            return PreparedLaunch(task, target, spec, spec.encode())
        args = spec.encode(context.keyring, args_scope(str(task.key), nonce, launch, target.encode()))
        return PreparedLaunch(task, target, spec, args, nonce=nonce, launch=launch)
    except ConfigError as error:
        try:
            profile.require_launchable()
        except ConfigError:
            context.circuit_breakers.open(task.queue, str(error))
            return None
        reason = str(error)  # the profile fails only together with what this request asks for: other requests go on
    except PermanentError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - the same request would fail at every try, for ever
        reason = f"its run_task arguments cannot be built ({type(error).__name__})"
    return PreparedLaunch(task, target, invalid_reason=reason)
