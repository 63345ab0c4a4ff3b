"""What a launch would send, rendered from a request and its queue's profile, frozen in the ledger at the claim."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from ecs_queue.errors import UndecodableMessage
from ecs_queue.messages.envelope import TaskRequest, to_datetime
from ecs_queue.messages.keyring import NO_KEYS, Keyring, Scope
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.runtask.arguments import RunTaskProfile, render_run_task_kwargs
from ecs_queue.tasks import EcsQueuedTask

SpecT = TypeVar("SpecT")

#: A worker of another version leaves a plan to those that know it.
VERSION = 1


class LaunchSpec(msgspec.Struct, frozen=True):
    """`container` decides how the task ended; `max_attempts` as configured when it was launched."""

    container_name: str | None
    max_attempts: int
    run_task: dict[str, Any]
    v: int = VERSION

    def __repr__(self) -> str:
        """Without the arguments: commands and environments hold secrets."""
        return f"Plan(container={self.container_name!r}, max_attempts={self.max_attempts})"

    def encode(self, keyring: Keyring = NO_KEYS, scope: Scope = ()) -> str:
        """JSON, as the record's `args`: sealed and signed where the keyring has keys, for this `args_scope` alone.

        What following a task needs (`PlanHead`) is never sealed.
        """
        if not keyring.has_encryption_keys:
            return keyring.sign(msgspec.json.encode(self), scope).decode()
        secret = keyring.seal(msgspec.json.encode(self.run_task), scope)
        closed = _SealedLaunchSpec(self.container_name, self.max_attempts, secret, self.v)
        return keyring.sign(msgspec.json.encode(closed), scope).decode()


class _SpecVersion(msgspec.Struct):
    v: int = VERSION


class LaunchSpecHeader(msgspec.Struct, frozen=True):
    """A `Plan` without the arguments: what following a task needs, read without building the rest."""

    container_name: str | None = None
    max_attempts: int = 1
    v: int = VERSION


class _SealedLaunchSpec(msgspec.Struct, frozen=True):
    container_name: str | None
    max_attempts: int
    sealed: str | None = None
    v: int = VERSION


def build_launch_spec(profile: RunTaskProfile, max_attempts: int, task: EcsQueuedTask) -> LaunchSpec:
    """The plan of one launch; InvalidRequest when run_task could never take it."""
    return LaunchSpec(profile.container_name, max_attempts, render_run_task_kwargs(profile, task))


def args_scope(record_id: str, nonce: str, launch: int, target: str) -> Scope:
    """What frozen arguments belong to: one launch of one submission, to one target."""
    return ("args", record_id, nonce, str(launch), target)


def record_args_scope(record: Record) -> Scope:
    """What the `args` of a record must have been frozen for."""
    return args_scope(record.id, record.nonce, record.launch, record.target)


def decode_launch_spec(args: str, keyring: Keyring = NO_KEYS, scope: Scope = ()) -> LaunchSpec:
    """The plan that a record's `args` hold.

    UnverifiedMessage: the keyring has signing keys, and none of them signed these arguments for this scope (or they
    were sealed for another one). SealedMessage: no key of the keyring opens them. UndecodableMessage: they are of
    another version, which counts only once it is known who wrote it: else anybody could have them left alone.
    """
    text = args.encode()
    keyring.verify(text, scope)
    _check_version(text)
    closed = _decode(text, _SealedLaunchSpec) if b'"sealed"' in text else None
    if closed is None or closed.sealed is None:
        return _decode(text, LaunchSpec)
    run_task: dict[str, Any] = _decode(keyring.unseal(closed.sealed, scope), dict)
    return LaunchSpec(closed.container_name, closed.max_attempts, run_task)


def try_decode_launch_spec(record: Record, keyring: Keyring) -> LaunchSpec | None:
    """The plan of a record, where it only serves to show something; None when there is none for this keyring."""
    try:
        return decode_launch_spec(record.args, keyring, record_args_scope(record)) if record.args else None
    except UndecodableMessage:
        return None


def launch_spec_header(record: Record) -> LaunchSpecHeader:
    """What following a record's task needs: as stored at the claim, or read from `args` when it was not.

    Raises:
        UndecodableMessage: the arguments were frozen by a worker of another version.
    """
    if record.args and not record.spec_version:
        header = _decode(record.args.encode(), LaunchSpecHeader)
    else:
        version = record.spec_version or VERSION
        header = LaunchSpecHeader(record.container_name or None, record.max_attempts or 1, version)
    _require_known_version(header.v)
    return header


def build_queued_task(request: TaskRequest, attempt: int, next_attempt_time: float) -> EcsQueuedTask:
    """The reference API's record of a task that is about to be launched."""
    return EcsQueuedTask(
        key=request.id,
        command=request.command,
        queue=request.queue,
        executor_config=request.executor_config or {},
        attempt_number=attempt,
        next_attempt_time=to_datetime(next_attempt_time),  # type: ignore[arg-type]
    )


def build_submission(request: TaskRequest, body: bytes, nonce: str, launch_deadline: float) -> Submission:
    """What the ledger needs of an envelope. Without an `expires_at` of its own the launch deadline counts."""
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


def _check_version(text: bytes) -> None:
    _require_known_version(_decode(text, _SpecVersion).v)


def _require_known_version(version: int) -> None:
    if version != VERSION:
        raise UndecodableMessage(
            f"the run_task arguments in the record are of version {version}, this worker knows {VERSION}"
        )


def _decode(text: bytes, kind: type[SpecT]) -> SpecT:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UndecodableMessage(f"the run_task arguments in the record cannot be read ({error})") from None
