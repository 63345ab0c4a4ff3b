"""What would be sent for a request, made before its record is claimed."""

from __future__ import annotations

from dataclasses import dataclass, field

from ecs_queue.broker.base import Delivery
from ecs_queue.config import Profile
from ecs_queue.core import envelope
from ecs_queue.core.envelope import TaskRequest
from ecs_queue.core.plan import Plan, args_scope, plan_of, queued_task
from ecs_queue.core.protocol import ClaimOffer
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import ConfigError, PermanentError, UndecodableMessage
from ecs_queue.launcher.parts import Parts


@dataclass(frozen=True, slots=True)
class Draft:
    """A request and what would be sent for it, `args` its JSON; `refusal` when nothing ever can be.

    `nonce`, `launch`: the only ones that `args` are good for; "" and 0: any.
    """

    request: TaskRequest = field(repr=False)
    target: Target
    plan: Plan | None
    args: str = field(default="", repr=False)
    refusal: str = ""
    nonce: str = ""
    launch: int = 0

    def offer(self, parts: Parts) -> ClaimOffer:
        """A claim with these arguments, and a token of its own."""
        return ClaimOffer(
            claim=parts.new_id(),
            worker=parts.worker,
            args=self.args,
            target=self.target.encode(),
            limit=parts.config.profile(self.request.queue).max_in_flight,
            nonce=self.nonce,
            launch=self.launch,
        )


def read(parts: Parts, delivery: Delivery, nonce: str) -> tuple[Draft | None, str]:
    """The message's draft, and why it is a dead letter. Neither: its queue's profile is unusable."""
    try:
        request = envelope.decode_request(delivery.body, parts.keyring)
    except UndecodableMessage as error:
        return None, str(error)
    if request.queue != delivery.queue:
        # Whoever may write to one queue must not get at another one's profile.
        return None, f"it names the queue {request.queue}"
    parts.telemetry.emit("request.received", id=request.id, queue=request.queue)
    return draft_of(parts, request, nonce, 1), ""


def draft_of(parts: Parts, request: TaskRequest, nonce: str, launch: int) -> Draft | None:
    """None: the queue's profile is unusable; its circuit opens and the request waits."""
    profile = parts.config.profile(request.queue)
    try:
        target = parts.target_for(request.queue)
    except ConfigError as error:
        parts.circuits.open(request.queue, str(error))
        return None
    try:
        plan = plan_of(profile, profile.max_run_task_attempts, queued_task(request, 1, 0.0))
        if parts.keyring.is_empty:
            return Draft(request, target, plan, args=plan.encode())
        scope = args_scope(request.id, nonce, launch, target.encode())
        return Draft(request, target, plan, args=plan.encode(parts.keyring, scope), nonce=nonce, launch=launch)
    except ConfigError as error:
        if not _can_launch(profile):
            parts.circuits.open(request.queue, str(error))
            return None
        reason = str(error)  # only together with what this request asks for, so the others go on
    except PermanentError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - the same request would fail at every try, for ever
        reason = f"its run_task arguments cannot be built ({type(error).__name__})"
    return Draft(request, target, None, refusal=reason)


def _can_launch(profile: Profile) -> bool:
    try:
        profile.require_launchable()
    except ConfigError:
        return False
    return True
