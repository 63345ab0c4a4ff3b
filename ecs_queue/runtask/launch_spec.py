"""The launch spec: what one launch sends to RunTask, rendered from a request and its queue's profile.

A worker freezes it as the record's `args` when it claims the record.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from ecs_queue.error_text import error_text
from ecs_queue.errors import InvalidRequest, UndecodableMessage
from ecs_queue.messages.keyring import NO_KEYS, Keyring, Scope
from ecs_queue.messages.request import TaskRequest
from ecs_queue.messages.result import to_datetime
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.runs.runner_key import RunnerCommand
from ecs_queue.runs.runner_options import RUNNER_COMMAND
from ecs_queue.runtask.arguments import check_overrides_length, render_run_task_kwargs
from ecs_queue.runtask.executor_config import find_choices, normalize_executor_config
from ecs_queue.runtask.merge import merge_run_task
from ecs_queue.runtask.profile import RunTaskProfile
from ecs_queue.tasks import EcsQueuedTask

SpecT = TypeVar("SpecT")

#: The variable of a process that continues a trace, by OpenTelemetry's convention.
TRACEPARENT = "TRACEPARENT"
#: A worker leaves launch specs of another version to workers that know it. The second starts a runner of a warm pool;
#: the third may, too, and has launch policies, which the worker that follows the task must know.
VERSION, RUNNER_VERSION, POLICY_VERSION = 1, 2, 3


class LaunchSpecHeader(msgspec.Struct, frozen=True):
    """The part of a launch spec that following a task needs; it is never sealed."""

    container_name: str | None = None
    max_attempts: int = 1
    v: int = VERSION


class _StoredSpec(PayloadRepr, LaunchSpecHeader, frozen=True):
    sealed: str | None = None
    chosen: tuple[str, ...] = ()


class LaunchSpec(msgspec.Struct, frozen=True):
    """What one launch sends.

    Attributes:
        container_name: The container that decides how the task ended.
        max_attempts: As configured when the task was launched.
        run_task: The arguments of RunTask, without clientToken and startedBy.
        chosen: What the request itself chose and ECS may refuse because of it: "tags", "capacity", and its roles.
    """

    container_name: str | None
    max_attempts: int
    run_task: dict[str, Any]
    v: int = VERSION
    chosen: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return a text without the arguments: commands and environments hold secrets."""
        return f"LaunchSpec(container_name={self.container_name!r}, max_attempts={self.max_attempts})"

    @property
    def family(self) -> str:
        """The family of the task definition: of `arn:.../family:1`, `family:1` or `family`."""
        return str(self.run_task.get("taskDefinition") or "").rpartition("/")[2].partition(":")[0]

    def encode(self, keyring: Keyring = NO_KEYS, scope: Scope = ()) -> str:
        """Return the JSON for a record's `args`, sealed and signed for this `args_scope` if the keyring has keys."""
        text = msgspec.json.encode(self)
        if keyring.has_encryption_keys:
            sealed = keyring.seal(msgspec.json.encode(self.run_task), scope)
            text = msgspec.json.encode(_StoredSpec(self.container_name, self.max_attempts, self.v, sealed, self.chosen))
        return keyring.sign(text, scope).decode()


def build_launch_spec(
    profile: RunTaskProfile, max_attempts: int, task: EcsQueuedTask, labels: Mapping[str, str] | None = None
) -> LaunchSpec:
    """Return the spec of one launch; raises InvalidRequest if run_task could never accept it.

    Args:
        profile: Of the task's queue.
        max_attempts: How many attempts the request may use.
        task: What is launched.
        labels: Those of the request, of which the profile may make tags.
    """
    run_task = render_run_task_kwargs(profile, task, labels)
    chosen = find_choices(normalize_executor_config(task.executor_config, profile.container_name))
    return LaunchSpec(profile.container_name, max_attempts, run_task, chosen=chosen)


def add_traceparent(spec: LaunchSpec, traceparent: str) -> LaunchSpec:
    """Return the spec with TRACEPARENT in the main container's environment, so that its spans join the caller's trace.

    The spec stays as it is when the request or the profile sets the variable, and when ECS would find it too long: a
    trace must not keep a request from being launched.
    """
    run_task: dict[str, Any] = copy.deepcopy(spec.run_task)
    containers = run_task.get("overrides", {}).get("containerOverrides", ())
    main = next((container for container in containers if container.get("name") == spec.container_name), None)
    if main is None or any(variable.get("name") == TRACEPARENT for variable in main.get("environment", ())):
        return spec
    main["environment"] = [*main.get("environment", ()), {"name": TRACEPARENT, "value": traceparent}]
    try:
        check_overrides_length(run_task["overrides"])
    except InvalidRequest:
        return spec
    return msgspec.structs.replace(spec, run_task=run_task)


def start_runner_with(spec: LaunchSpec, environment: Mapping[str, str]) -> LaunchSpec:
    """Return the spec of the same task with a runner in its main container, which takes its command from the ledger."""
    main = str(spec.container_name)
    override = {"name": main, "command": list(RUNNER_COMMAND), "environment": _encode_environment(environment)}
    run_task = merge_run_task(_without_command(spec), {"overrides": {"containerOverrides": [override]}})
    return msgspec.structs.replace(spec, run_task=run_task, v=max(spec.v, RUNNER_VERSION))


def runner_command(spec: LaunchSpec) -> RunnerCommand:
    """Return what the main container of this spec would run."""
    for override in _container_overrides(spec):
        if override.get("name") == spec.container_name:
            environment = {entry["name"]: entry["value"] for entry in override.get("environment", ())}
            return RunnerCommand(list(override.get("command", ())), environment)
    return RunnerCommand([])


def pool_of(spec: LaunchSpec, queue: str, target: str, key_id: str) -> str:
    """Return the pool of a request: its queue, and a hash of what its runner would be, apart from its command.

    Args:
        spec: What is launched.
        queue: Of the request.
        target: Where, encoded.
        key_id: Of the key that seals the command: a runner knows only the keys that there were when it started.
    """
    text = msgspec.json.encode([target, spec.container_name, _without_command(spec), key_id], order="deterministic")
    return f"{queue}.{hashlib.sha256(text).hexdigest()[:16]}"


def _without_command(spec: LaunchSpec) -> dict[str, Any]:
    overrides = dict(spec.run_task.get("overrides", {}))
    overrides["containerOverrides"] = [
        {key: value for key, value in override.items() if key not in ("command", "environment")}
        if override.get("name") == spec.container_name
        else override
        for override in _container_overrides(spec)
    ]
    return {**spec.run_task, "overrides": overrides}


def _container_overrides(spec: LaunchSpec) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = spec.run_task.get("overrides", {}).get("containerOverrides", ())
    return found


def _encode_environment(environment: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in environment.items()]


def args_scope(record_id: str, nonce: str, launch: int, target: str) -> Scope:
    """Return the scope of frozen arguments: one launch of one submission, for one target."""
    return ("args", record_id, nonce, str(launch), target)


def record_args_scope(record: Record) -> Scope:
    """Return the scope that a record's `args` must have been frozen for."""
    return args_scope(record.id, record.nonce, record.launch, record.target)


def decode_launch_spec(args: str, keyring: Keyring = NO_KEYS, scope: Scope = ()) -> LaunchSpec:
    """Return the launch spec in a record's `args`.

    Raises:
        UnverifiedMessage: The keyring has signing keys, and none of them signed these arguments for this scope; or they
            were sealed for another scope.
        SealedMessage: No key of the keyring opens them.
        UndecodableMessage: They are of another version. The version counts only once the signature is verified, else
            any writer to the ledger could have a launch left to newer workers.
    """
    text = args.encode()
    keyring.verify(text, scope)
    stored = _decode(text, _StoredSpec)
    _check_version(stored.v)
    if stored.sealed is None:
        return _decode(text, LaunchSpec)
    run_task: dict[str, Any] = _decode(keyring.unseal(stored.sealed, scope), dict)
    return LaunchSpec(stored.container_name, stored.max_attempts, run_task, chosen=stored.chosen)


def try_decode_launch_spec(record: Record, keyring: Keyring) -> LaunchSpec | None:
    """Return a record's launch spec for display; None if there is none that this keyring can read."""
    try:
        return decode_launch_spec(record.args, keyring, record_args_scope(record)) if record.args else None
    except UndecodableMessage:
        return None


def launch_spec_header(record: Record) -> LaunchSpecHeader:
    """Return what following a record's task needs, as stored at the claim, else as decoded from `args`.

    Raises:
        UndecodableMessage: A worker of another version froze the arguments.
    """
    if record.args and not record.spec_version:
        header = _decode(record.args.encode(), LaunchSpecHeader)
    else:
        version = record.spec_version or VERSION
        header = LaunchSpecHeader(record.container_name or None, record.max_attempts or 1, version)
    _check_version(header.v)
    return header


def build_queued_task(request: TaskRequest, attempt: int, next_attempt_time: float) -> EcsQueuedTask:
    """Return the reference API's queued task, from which the launch is prepared."""
    return EcsQueuedTask(
        key=request.id,
        command=request.command,
        queue=request.queue,
        executor_config=request.executor_config or {},
        attempt_number=attempt,
        next_attempt_time=to_datetime(next_attempt_time),  # type: ignore[arg-type]
    )


def build_submission(request: TaskRequest, body: bytes, nonce: str, launch_deadline: float) -> Submission:
    """Return what the ledger stores of a request; without an `expires_at` of its own the launch deadline applies."""
    return Submission(
        id=request.id,
        nonce=nonce,
        digest=request.digest(),
        queue=request.queue,
        owner=request.owner,
        relaunch=request.relaunch,
        request=body,
        accept_until=request.accept_until,
        expires_at=request.expires_at or max(request.not_before or 0.0, request.submitted_at) + launch_deadline,
        delayed_until=request.not_before or 0.0,
        time_limit=request.time_limit or 0.0,
        traceparent=request.traceparent,
        labels=encode_labels(request.labels),
        submitted_by=request.submitted_by,
        concurrency_key=request.concurrency_key or "",
        priority=request.priority if request.concurrency_key else 0,
    )


def encode_labels(labels: Mapping[str, str] | None) -> str:
    """Return the labels as a record has them: JSON with the keys in order, "" for none."""
    return msgspec.json.encode(dict(labels), order="sorted").decode() if labels else ""


def _check_version(version: int) -> None:
    if not VERSION <= version <= POLICY_VERSION:
        raise UndecodableMessage(
            f"the run_task arguments in the record are of version {version}, this worker knows up to {POLICY_VERSION}"
        )


def _decode(text: bytes, kind: type[SpecT]) -> SpecT:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UndecodableMessage(f"the run_task arguments in the record cannot be read ({error_text(error)})") from None
