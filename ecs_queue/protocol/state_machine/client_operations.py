"""What a client does with a request: submit it, stop it, name the receiver of its result, confirm the result.

Workers put and stop requests, too: they put the request of a message whose record is missing, and stop a task that has
not started in time or has exceeded its time limit.
"""

from __future__ import annotations

import msgspec

from ecs_queue.protocol.operations import ONLY_QUEUED, ResultCode
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.protocol.record_moves import finish, stop_reason
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.states import State


def put(record: Record | None, submission: Submission, now: float) -> tuple[ResultCode, Record | None]:
    """Store a request: CREATED, UNCHANGED, CONFLICT, TOO_LATE or ENDED, and the record that there is now."""
    if record is None:
        if now >= submission.accept_until:
            return ResultCode.TOO_LATE, None
        not_before = submission.delayed_until if submission.delayed_until > now else 0.0
        return ResultCode.CREATED, Record(**msgspec.structs.asdict(submission), created_at=now, not_before=not_before)
    if record.is_terminal and not record.digest:  # a stop created the record; this is the request that it was meant for
        record.nonce, record.digest = submission.nonce, submission.digest
        record.owner = record.owner or submission.owner  # set already if the record was adopted
        record.queue, record.accept_until = submission.queue, submission.accept_until
        record.undelivered = bool(record.owner)
        return ResultCode.ENDED, record
    return (ResultCode.UNCHANGED if record.digest == submission.digest else ResultCode.CONFLICT), record


def stop(record: Record, requested_by: str, launch: int, now: float) -> ResultCode:
    """Request a stop: a QUEUED record ends at once, another live one is marked.

    With a `launch` above 0 only a record that is LAUNCHED with this number is stopped, with ONLY_QUEUED only a
    QUEUED one; else the result is STALE.
    """
    obstacle = find_stop_obstacle(record, launch)
    if obstacle is not None:
        return obstacle
    record.stop_requested_by = record.stop_requested_by or requested_by
    record.stop_requested_at = record.stop_requested_at or now
    if record.state is State.QUEUED:
        return finish(record, State.REVOKED, record.attempt - 1, now, stop_reason(record))
    return ResultCode.STOP_REQUESTED


def find_stop_obstacle(record: Record, launch: int) -> ResultCode | None:
    """Return why a stop does nothing; None if it may be requested."""
    if record.is_terminal:
        return ResultCode.UNCHANGED
    if launch == ONLY_QUEUED:
        return None if record.state is State.QUEUED else ResultCode.STALE
    if launch and (record.state is not State.LAUNCHED or record.launch != launch):
        return ResultCode.STALE
    return None


def build_tombstone(record_id: str, requested_by: str, now: float, settings: ProtocolSettings) -> Record:
    """Return the record that a stop creates for a request that has not arrived, kept as long as it may still arrive."""
    record = Record(
        id=record_id,
        created_at=now,
        accept_until=now + settings.accept_seconds,
        stop_requested_by=requested_by,
        stop_requested_at=now,
    )
    finish(record, State.REVOKED, 0, now, stop_reason(record))
    return record


def adopt(record: Record, owner: str) -> ResultCode:
    """Send results to another owner from now on; a finished one is delivered again."""
    record.owner = owner
    if not record.is_terminal:
        return ResultCode.OK
    record.undelivered = bool(owner)
    record.confirmed_at = 0.0
    return ResultCode.ENDED


def confirm(record: Record, nonce: str, owner: str, now: float) -> ResultCode:
    """Note that the owner has the result."""
    if not record.is_terminal or record.nonce != nonce or record.owner != owner:
        return ResultCode.NOT_OWNER
    record.undelivered = False
    record.confirmed_at = record.confirmed_at or now
    return ResultCode.OK
