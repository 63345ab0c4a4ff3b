"""What would be sent for a request, made before its record is claimed."""

from __future__ import annotations

from dataclasses import dataclass, field

from ecs_queue.broker.base import Delivery
from ecs_queue.config import Profile
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import ConfigError, PermanentError, UndecodableMessage
from ecs_queue.messages import envelope
from ecs_queue.messages.envelope import TaskRequest
from ecs_queue.protocol.operations import ClaimRequest
from ecs_queue.runtask.launch_spec import LaunchSpec, args_scope, build_launch_spec, build_queued_task
from ecs_queue.worker.context import WorkerContext


@dataclass(frozen=True, slots=True)
class PreparedLaunch:
    """A request and what would be sent for it, `args` its JSON; `refusal` when nothing ever can be.

    `nonce`, `launch`: the only ones that `args` are good for; "" and 0: any.
    """

    request: TaskRequest = field(repr=False)
    target: Target
    spec: LaunchSpec | None
    args: str = field(default="", repr=False)
    invalid_reason: str = ""
    nonce: str = ""
    launch: int = 0

    def build_claim_request(self, context: WorkerContext) -> ClaimRequest:
        """A claim with these arguments, and a token of its own."""
        return ClaimRequest(
            claim=context.new_id(),
            worker=context.worker_name,
            args=self.args,
            target=self.target.encode(),
            container_name=(self.spec and self.spec.container_name) or "",
            max_attempts=self.spec.max_attempts if self.spec else 0,
            spec_version=self.spec.v if self.spec else 0,
            queue_limit=context.config.profile(self.request.queue).max_in_flight,
            nonce=self.nonce,
            launch=self.launch,
        )


def prepare_delivery(context: WorkerContext, delivery: Delivery, nonce: str) -> tuple[PreparedLaunch | None, str]:
    """The message's draft, and why it is a dead letter. Neither: its queue's profile is unusable."""
    try:
        request = envelope.decode_request(delivery.body, context.keyring)
    except UndecodableMessage as error:
        return None, str(error)
    if request.queue != delivery.queue:
        # Whoever may write to one queue must not get at another one's profile.
        return None, f"it names the queue {request.queue}"
    context.telemetry.emit("request.received", id=request.id, queue=request.queue)
    return prepare_launch(context, request, nonce, 1), ""


def prepare_launch(context: WorkerContext, request: TaskRequest, nonce: str, launch: int) -> PreparedLaunch | None:
    """None: the queue's profile is unusable; its circuit opens and the request waits."""
    profile = context.config.profile(request.queue)
    try:
        target = context.target_for(request.queue)
    except ConfigError as error:
        context.circuit_breakers.open(request.queue, str(error))
        return None
    try:
        plan = build_launch_spec(profile, profile.max_run_task_attempts, build_queued_task(request, 1, 0.0))
        if context.keyring.is_empty:
            return PreparedLaunch(request, target, plan, args=plan.encode())
        scope = args_scope(request.id, nonce, launch, target.encode())
        return PreparedLaunch(
            request, target, plan, args=plan.encode(context.keyring, scope), nonce=nonce, launch=launch
        )
    except ConfigError as error:
        if not _is_launchable(profile):
            context.circuit_breakers.open(request.queue, str(error))
            return None
        reason = str(error)  # only together with what this request asks for, so the others go on
    except PermanentError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - the same request would fail at every try, for ever
        reason = f"its run_task arguments cannot be built ({type(error).__name__})"
    return PreparedLaunch(request, target, None, invalid_reason=reason)


def _is_launchable(profile: Profile) -> bool:
    try:
        profile.require_launchable()
    except ConfigError:
        return False
    return True
