"""Prepares what RunTask would be given for a request, before its record is claimed."""

from __future__ import annotations

from contextlib import suppress

import msgspec
from msgspec.structs import replace

from ecs_queue.broker.base import Delivery
from ecs_queue.config import Config, Profile
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import ConfigError, InvalidRequest, PermanentError, UndecodableMessage
from ecs_queue.messages import envelope
from ecs_queue.messages.request import TaskRequest
from ecs_queue.monitoring.spans import Submitted
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.protocol.operations import ClaimRequest
from ecs_queue.protocol.record import build_client_token
from ecs_queue.runs.runner_key import Assignment
from ecs_queue.runs.runner_options import OPTIONS_VARIABLE, RunnerOptions
from ecs_queue.runtask.executor_config import normalize_executor_config
from ecs_queue.runtask.launch_spec import (
    POLICY_VERSION,
    LaunchSpec,
    add_traceparent,
    args_scope,
    build_launch_spec,
    pool_of,
    runner_command,
    start_runner_with,
)
from ecs_queue.tasks import EcsQueuedTask
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.launch_policies import NO_POLICIES, LaunchPolicies, choose_policies


class PreparedLaunch(PayloadRepr, msgspec.Struct, frozen=True):
    """One launch of a task, whose key is its request's id, and the arguments that a claim would freeze.

    Attributes:
        spec: None when nothing can ever be sent; `invalid_reason` says why.
        args: The encoded `spec`.
        nonce: With `launch` the only launch that `args` are good for; "" and 0: any.
        pool: The pool whose runners may take the request; "": it gets a task of its own.
        payload: What a runner is to start.
        policies: The launch policies.
        variant: Of the queue's capacity, from 1 on; 0: the queue has only one, or the request chose its own.
        variant_reason: Why it is not the first one.
    """

    task: EcsQueuedTask
    target: Target
    spec: LaunchSpec | None = None
    args: str = ""
    invalid_reason: str = ""
    nonce: str = ""
    launch: int = 0
    pool: str = ""
    payload: str = ""
    policies: LaunchPolicies = NO_POLICIES
    variant: int = 0
    variant_reason: str = ""

    def build_claim_request(self, context: WorkerContext, *, may_call: bool = True) -> ClaimRequest:
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
            pool=self.pool,
            payload=self.payload,
            may_call=may_call,
            start_timeout=self.policies.start_timeout,
            retry_rules=self.policies.retry_rules,
            max_starting=self.policies.max_starting,
            variant=self.variant,
            variant_reason=self.variant_reason,
            key_limit=self.policies.max_per_key,
        )


def receive_request(context: WorkerContext, delivery: Delivery, *, is_again: bool = False) -> TaskRequest:
    """Return the request of a message. `is_again`: it was received before by this worker.

    Raises:
        UndecodableMessage: the message belongs to the dead letters.
    """
    request = envelope.decode_request(delivery.body, context.keyring)
    if request.queue != delivery.queue:
        # A client that may write to one queue must not get at the profile of another.
        raise UndecodableMessage(f"it names the queue {request.queue}")
    if not is_again:
        context.telemetry.emit("request.received", id=request.id, queue=request.queue)
    return request


def prepare_launch(
    context: WorkerContext, task: EcsQueuedTask, nonce: str, launch: int, request: TaskRequest
) -> PreparedLaunch | None:
    """Return what would be sent for a queued task, which was made of `request`.

    Returns:
        None when the queue's profile is unusable: its circuit breaker opens and the request waits.
    """
    state = context.capacity_fallback.present(task.queue)
    if state and _chooses_capacity(task, context.profile(task.queue)):
        state = None  # a fallback is for what the queue chooses
    variant, why = (state.variant, state.reason) if state else (1, "")
    profile = context.profile(task.queue, variant)
    try:
        target = context.variant_target(task.queue, variant)
    except ConfigError as error:
        context.circuit_breakers.open(task.queue, error.problem)
        return None
    try:
        prepared = PreparedLaunch(task, target, nonce=nonce, launch=launch)
        if state:
            prepared = replace(prepared, variant=variant, variant_reason=why)
        return _add_arguments(context, profile, prepared, request)
    except ConfigError as error:
        try:
            profile.require_launchable()
        except ConfigError:
            context.circuit_breakers.open(task.queue, error.problem)
            return None
        reason = str(error)  # the profile fails only together with what this request asks for: other requests go on
    except PermanentError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - the same request would fail at every try, for ever
        reason = f"its run_task arguments cannot be built ({type(error).__name__})"
    return PreparedLaunch(task, target, invalid_reason=reason)


def _add_arguments(
    context: WorkerContext, profile: Profile, prepared: PreparedLaunch, request: TaskRequest
) -> PreparedLaunch:
    """Return the launch with its arguments and policies; raises `PermanentError` for what cannot be launched."""
    task, target, nonce, launch = prepared.task, prepared.target, prepared.nonce, prepared.launch
    spec = build_launch_spec(profile, profile.max_run_task_attempts, task, request.labels)
    submitted = Submitted(context.config.namespace, request.id, nonce, request.traceparent)
    traceparent = context.tracing.container_traceparent(submitted, launch, request.queue)
    if traceparent:
        spec = add_traceparent(spec, traceparent)
    policies = choose_policies(profile, request)
    if policies != NO_POLICIES:
        spec = replace(spec, v=POLICY_VERSION)
    prepared = replace(prepared, spec=spec, policies=policies)
    if profile.warm_seconds:
        return _prepare_for_runner(context, profile, prepared)
    if context.keyring.is_empty:
        prepared = replace(prepared, args=spec.encode())
        is_for_any_launch = traceparent == request.traceparent  # else it names a span of this very launch
        return replace(prepared, nonce="", launch=0) if is_for_any_launch else prepared
    args = spec.encode(context.keyring, args_scope(str(task.key), nonce, launch, target.encode()))
    return replace(prepared, args=args)


def _chooses_capacity(task: EcsQueuedTask, profile: Profile) -> bool:
    """Whether the request itself says what it runs on. One that is wrong is refused when its launch is prepared."""
    with suppress(InvalidRequest):
        chosen = normalize_executor_config(task.executor_config, profile.container_name)
        return any(chosen.get(key) is not None for key in ("launchType", "capacityProviderStrategy"))
    return False


def _prepare_for_runner(context: WorkerContext, profile: Profile, prepared: PreparedLaunch) -> PreparedLaunch:
    """Return the launch with a runner in place of its command, which an idle runner of its pool may take."""
    spec, target, record_id = prepared.spec, prepared.target.encode(), str(prepared.task.key)
    assert spec is not None
    queue, config = profile.queue, context.config
    name = build_client_token(record_id, prepared.nonce, prepared.launch)
    keyring, keys = context.keyring, context.runner_keys(queue)
    assignment = Assignment(config.namespace, queue, record_id, prepared.nonce, prepared.launch)
    payload = keys.seal_payload(runner_command(spec), assignment, encrypts=keyring.has_encryption_keys)
    runner = start_runner_with(spec, _runner_environment(config, profile, name))
    scope = args_scope(record_id, prepared.nonce, prepared.launch, target)
    args = runner.encode() if keyring.is_empty else runner.encode(keyring, scope)
    pool = pool_of(spec, queue, target, keys.first_id)
    return replace(prepared, spec=runner, args=args, pool=pool, payload=payload)


def _runner_environment(config: Config, profile: Profile, name: str) -> dict[str, str]:
    options = RunnerOptions(
        run=name,
        namespace=config.namespace,
        queue=profile.queue,
        durability=config.durability,
        warm_seconds=profile.warm_seconds,
        warm_max_age=profile.warm_max_age,
        runner_ttl=config.runner_ttl,
        runner_lost_seconds=config.runner_lost_seconds,
        stop_timeout=config.stop_timeout,
        preload=list(profile.runner_preload),
    )
    return {OPTIONS_VARIABLE: msgspec.json.encode(options).decode()}
