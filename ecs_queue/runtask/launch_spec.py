"""The launch spec: what one launch sends to RunTask, rendered from a request and its queue's profile.

A worker freezes it as the record's `args` when it claims the record.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from ecs_queue.errors import UndecodableMessage
from ecs_queue.messages.envelope import TaskRequest, to_datetime
from ecs_queue.messages.keyring import NO_KEYS, Keyring, Scope
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.runtask.arguments import RunTaskProfile, render_run_task_kwargs
from ecs_queue.runtask.executor_config import find_choices, normalize_executor_config
from ecs_queue.tasks import EcsQueuedTask

SpecT = TypeVar("SpecT")

#: A worker leaves launch specs of another version to workers that know it.
VERSION = 1


class LaunchSpecHeader(msgspec.Struct, frozen=True):
    """The part of a launch spec that following a task needs; it is never sealed."""

    container_name: str | None = None
    max_attempts: int = 1
    v: int = VERSION


class _StoredSpec(LaunchSpecHeader, frozen=True):
    sealed: str | None = None
    chosen: tuple[str, ...] = ()


class LaunchSpec(msgspec.Struct, frozen=True):
    """What one launch sends.

    Attributes:
        container_name: The container that decides how the task ended.
        max_attempts: As configured when the task was launched.
        run_task: The arguments of RunTask, without clientToken and startedBy.
        chosen: What the request itself chose that a worker may not be allowed to send: "tags", and its roles.
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


def build_launch_spec(profile: RunTaskProfile, max_attempts: int, task: EcsQueuedTask) -> LaunchSpec:
    """Return the spec of one launch; raises InvalidRequest if run_task could never accept it."""
    run_task = render_run_task_kwargs(profile, task)
    chosen = find_choices(normalize_executor_config(task.executor_config, profile.container_name))
    return LaunchSpec(profile.container_name, max_attempts, run_task, chosen=chosen)


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
        expires_at=request.expires_at or request.submitted_at + launch_deadline,
        time_limit=request.time_limit or 0.0,
    )


def _check_version(version: int) -> None:
    if version != VERSION:
        raise UndecodableMessage(
            f"the run_task arguments in the record are of version {version}, this worker knows {VERSION}"
        )


def _decode(text: bytes, kind: type[SpecT]) -> SpecT:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UndecodableMessage(f"the run_task arguments in the record cannot be read ({error})") from None
