"""The launch protocol as pure functions over one record: each decides one atomic operation (PROTOCOL.md).

Every function takes the record, changes it in place and answers with a `Word`; `now` is the ledger's clock. The
in-memory ledger calls these; the Redis ledger runs the same rules in Lua, and one conformance suite plus a random
comparison of both holds them together.

Positive facts ("task X exists for launch n") are accepted from anyone; negative facts ("nothing was started") only
from the clean holder of the claim.
"""

from __future__ import annotations

import msgspec

from ecs_queue.protocol import reasons
from ecs_queue.protocol.operations import ClaimRequest, InFlightCounts, RefusalKind, ResultCode, TaskUpdate
from ecs_queue.protocol.poison import is_poison, reset_abandoned_claims
from ecs_queue.protocol.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record, Submission
from ecs_queue.protocol.settings import (
    ABSENCE_UNPROVABLE_AFTER,
    CLAIM_RETRY_SECONDS,
    LIST_DELIVERIES_FACTOR,
    LIST_ONLY_AFTER,
    TIME_TOLERANCE,
    ProtocolSettings,
)
from ecs_queue.protocol.states import State


def put(record: Record | None, submission: Submission, now: float) -> tuple[ResultCode, Record | None]:
    """created / same / conflict / too_late, with the record there is now."""
    if record is None:
        if now >= submission.accept_until:
            return ResultCode.TOO_LATE, None
        return ResultCode.CREATED, Record(**msgspec.structs.asdict(submission), created_at=now)
    if record.is_terminal and not record.digest:  # a stop came before the request: this is the request it was meant for
        record.nonce, record.digest = submission.nonce, submission.digest
        record.owner = record.owner or submission.owner  # an adoption may have come before, too
        record.queue, record.accept_until = submission.queue, submission.accept_until
        record.undelivered = bool(record.owner)
        return ResultCode.ENDED, record
    return (ResultCode.UNCHANGED if record.digest == submission.digest else ResultCode.CONFLICT), record


def is_expired(record: Record, now: float, settings: ProtocolSettings) -> bool:
    """Whether it is too late to start it."""
    return _is_past_start_deadline(record, now, settings.startup_allowance)


def claim(
    record: Record,
    claim_request: ClaimRequest | None,
    now: float,
    settings: ProtocolSettings,
    in_flight: InFlightCounts,
) -> ResultCode:
    """QUEUED and due: CALL, ENDED (expired), PAUSED, FULL or MOVED_ON. No offer: only end what has expired.

    A stopped record is never QUEUED: whatever would queue it again ends it instead.
    """
    if record.state is not State.QUEUED:
        return ResultCode.NOT_CLAIMABLE
    if is_expired(record, now, settings):
        _finish(record, State.EXPIRED, record.attempt - 1, now, _expiry_reason(record))
        return ResultCode.ENDED
    if claim_request is None or record.not_before > now:
        return ResultCode.NOT_CLAIMABLE
    if claim_request.nonce and (claim_request.nonce, claim_request.launch) != (record.nonce, record.launch):
        return ResultCode.NOT_CLAIMABLE
    held = _find_claim_obstacle(claim_request, settings, in_flight)
    if held is not None:
        record.not_before = now + CLAIM_RETRY_SECONDS
        return held
    if not record.args:
        record.args, record.target = claim_request.args, claim_request.target
        record.container_name, record.max_attempts = claim_request.container_name, claim_request.max_attempts
        record.spec_version = claim_request.spec_version
    record.state = State.LAUNCHING
    record.not_before = 0.0
    record.calls += 1
    record.first_called_at = record.last_claim_at = now
    _set_claim(record, claim_request, now, settings)
    return ResultCode.RUN_TASK


def reclaim(
    record: Record, claim_request: ClaimRequest, now: float, settings: ProtocolSettings, is_holder_alive: bool
) -> ResultCode:
    """Take over a LAUNCHING record whose lease is over: CALL again, or only LOOK.

    `holder_lives`: the former holder was heard of lately, so it lost the ledger's answer and did not die of the record.
    Of one that breaks its workers no call is made any more, and when looking for it breaks them too, nobody looks:
    ENDED.
    """
    if record.state is not State.LAUNCHING or record.lease_until > now:
        return ResultCode.NOT_CLAIMABLE
    if is_holder_alive:
        record.abandoned_claims = max(0, record.abandoned_claims - 1)
    if record.abandoned_claims > LIST_DELIVERIES_FACTOR * settings.max_deliveries:
        reason = reasons.POISON % settings.max_deliveries + reasons.POISON_TASK_UNKNOWN
        _finish(record, State.UNKNOWN, record.attempt, now, reason)
        return ResultCode.ENDED
    record.ambiguous = True
    _set_claim(record, claim_request, now, settings)
    if is_poison(record, settings):
        record.retired = True
        record.reason = reasons.POISON % settings.max_deliveries
    if is_list_only(record, now, settings.startup_allowance):
        return ResultCode.LIST_TASKS
    record.calls += 1
    record.last_claim_at = now
    return ResultCode.RUN_TASK


def is_list_only(record: Record, now: float, startup_allowance: float) -> bool:
    """Whether a LAUNCHING record whose lease is over must not be called again, only looked for."""
    return (
        bool(record.stop_requested_by)
        or record.retired
        or _is_past_start_deadline(record, now, startup_allowance)
        or now - record.first_called_at >= LIST_ONLY_AFTER
    )


def absence_provable_at(record: Record, settings: ProtocolSettings) -> float:
    """H: from then on an empty list proves that nothing was started."""
    return record.last_claim_at + settings.lease_seconds + settings.settle_seconds


def launched(record: Record, nonce: str, launch: int, arn: str, now: float) -> ResultCode:
    """A task exists for this launch: OK, SAME, or STOP_IT when the record has no use for it."""
    if record.nonce != nonce or record.launch != launch:
        return ResultCode.UNWANTED
    if record.arn == arn and record.state is not State.QUEUED:
        return ResultCode.UNCHANGED
    if record.state not in (State.LAUNCHING, State.QUEUED):
        return ResultCode.UNWANTED
    record.state = State.LAUNCHED
    record.arn = arn
    record.launched_at = now
    record.reason = ""
    record.not_before = 0.0
    record.calls = 0
    _clear_claim(record)
    return ResultCode.OK


def call_ambiguous(
    record: Record, claim_token: str, call_completed: str, reason: str, now: float, settings: ProtocolSettings
) -> ResultCode:
    """The call may have taken effect. `answered` "1": ECS has ended the call with a 5xx, so it cannot act later."""
    if not _has_claim(record, claim_token):
        return ResultCode.CLAIM_LOST
    if call_completed != "1":
        record.ambiguous = True
    record.claim = ""  # its holder has given up: nothing it may say later is the word of a clean holder
    record.lease_until = now
    record.reason = reason
    reset_abandoned_claims(record, settings)
    return ResultCode.OK


def no_effect(
    record: Record, claim_token: str, wait: float, reason: str, now: float, settings: ProtocolSettings
) -> ResultCode:
    """Throttled or never sent: the same launch number again later, unless an earlier call of it is in doubt."""
    if not _has_claim(record, claim_token):
        return ResultCode.CLAIM_LOST
    record.reason = reason
    if record.ambiguous:
        record.lease_until = now
        reset_abandoned_claims(record, settings)
        return ResultCode.OK
    if record.stop_requested_by:
        _finish(record, State.REVOKED, record.attempt - 1, now, _stop_reason(record))
        return ResultCode.ENDED
    record.state = State.QUEUED
    record.not_before = now + wait
    record.first_called_at = record.last_claim_at = 0.0
    _clear_claim(record)
    return ResultCode.OK


def refused(
    record: Record,
    claim_token: str,
    kind: RefusalKind,
    wait: float,
    reason: str,
    max_attempts: int,
    now: float,
    settings: ProtocolSettings,
) -> ResultCode:
    """A definitive "no". From a holder in doubt it proves nothing: the number is burnt, only looks follow."""
    if not _has_claim(record, claim_token):
        return ResultCode.CLAIM_LOST
    record.reason = reason
    if record.ambiguous:
        record.retired = True
        record.lease_until = now
        reset_abandoned_claims(record, settings)
        return ResultCode.OK
    if record.stop_requested_by:
        made = record.attempt - 1 if kind is RefusalKind.CAPACITY else record.attempt
        _finish(record, State.REVOKED, made, now, _stop_reason(record))
        return ResultCode.ENDED
    if kind is RefusalKind.PERMANENT:
        _finish(record, State.FAILED, record.attempt, now, reason)
        return ResultCode.ENDED
    if kind is RefusalKind.START_FAILURE:
        if record.attempt >= max_attempts:
            _finish(record, State.REMOVED, record.attempt, now, reason)
            return ResultCode.ENDED
        record.attempt += 1
        record.calls = 0
    _queue_next_launch(record, now + wait)
    return ResultCode.REQUEUED


def task_absent(
    record: Record, claim_token: str, wait: float, advice: str, now: float, settings: ProtocolSettings
) -> ResultCode:
    """Looked, and found nothing: proof after H, and only while ECS would still list a short task.

    The look was made at some time after the claim, and before now: so the claim itself must not be older than H,
    else a call that arrives between the look and H would be missed. `why`: what to do when nothing is proof any more.
    """
    if not _has_claim(record, claim_token):
        return ResultCode.CLAIM_LOST
    claimed_at = record.lease_until - settings.lease_seconds
    if claimed_at < absence_provable_at(record, settings) - TIME_TOLERANCE:
        record.lease_until = now
        reset_abandoned_claims(record, settings)
        return ResultCode.TOO_EARLY
    if now - record.first_called_at > ABSENCE_UNPROVABLE_AFTER:
        reason = reasons.ABSENCE_UNPROVABLE % advice
        _finish(record, State.UNKNOWN, record.attempt, now, reason)
        return ResultCode.ENDED
    if record.stop_requested_by:
        _finish(record, State.REVOKED, record.attempt - 1, now, _stop_reason(record))
        return ResultCode.ENDED
    if is_poison(record, settings):
        _finish(record, State.FAILED, record.attempt - 1, now, reasons.POISON % settings.max_deliveries)
        return ResultCode.ENDED
    if is_expired(record, now, settings):
        _finish(record, State.EXPIRED, record.attempt - 1, now, _expiry_reason(record))
        return ResultCode.ENDED
    _queue_next_launch(record, now + wait)
    return ResultCode.REQUEUED


def update_task(record: Record, update: TaskUpdate, now: float) -> ResultCode:
    """What a look showed: OK (noted), RETRY, ENDED, or STALE when the record knows better."""
    if record.state is not State.LAUNCHED or record.launch != update.launch or record.arn != update.arn:
        return ResultCode.STALE
    unversioned = update.version == 0 and record.version == 0
    if update.version <= record.version and not unversioned:
        return ResultCode.STALE
    record.version = update.version
    record.last_status = update.last_status
    record.started_at = update.started_at or record.started_at
    if update.end_state is None:
        return ResultCode.OK
    if update.may_relaunch and not record.stop_requested_by and record.attempt < update.max_attempts:
        record.attempt += 1
        record.reason = update.reason
        record.calls = 0
        _queue_next_launch(record, now + update.wait)
        return ResultCode.REQUEUED
    state, reason = _final_state_and_reason(record, update)
    record.exit_code = update.exit_code
    record.stop_code = update.stop_code
    _finish(record, state, record.attempt, update.finished_at or now, reason)
    return ResultCode.ENDED


def stop(record: Record, requested_by: str, launch: int, now: float) -> ResultCode:
    """Ask for a stop. QUEUED ends at once; a live one is marked. `launch` > 0: only if LAUNCHED with this number."""
    if record.is_terminal:
        return ResultCode.UNCHANGED
    if launch and (record.state is not State.LAUNCHED or record.launch != launch):
        return ResultCode.STALE
    record.stop_requested_by = record.stop_requested_by or requested_by
    record.stop_requested_at = record.stop_requested_at or now
    if record.state is State.QUEUED:
        _finish(record, State.REVOKED, record.attempt - 1, now, _stop_reason(record))
        return ResultCode.ENDED
    return ResultCode.STOP_REQUESTED


def build_tombstone(record_id: str, requested_by: str, now: float, settings: ProtocolSettings) -> Record:
    """What a stop leaves for a request that has not arrived yet, for as long as it may still arrive."""
    accept_until = now + settings.accept_seconds
    record = Record(
        id=record_id, created_at=now, accept_until=accept_until, stop_requested_by=requested_by, stop_requested_at=now
    )
    _finish(record, State.REVOKED, 0, now, _stop_reason(record))
    return record


def adopt(record: Record, owner: str) -> ResultCode:
    """Results go to another owner from now on; a finished one is delivered again."""
    record.owner = owner
    if not record.is_terminal:
        return ResultCode.OK
    record.undelivered = bool(owner)
    record.confirmed_at = 0.0
    return ResultCode.ENDED


def confirm(record: Record, nonce: str, owner: str, now: float) -> ResultCode:
    """The owner has the result."""
    if not record.is_terminal or record.nonce != nonce or record.owner != owner:
        return ResultCode.NOT_OWNER
    record.undelivered = False
    record.confirmed_at = record.confirmed_at or now
    return ResultCode.OK


def _is_past_start_deadline(record: Record, now: float, startup_allowance: float) -> bool:
    return bool(record.expires_at) and now + startup_allowance >= record.expires_at


def _find_claim_obstacle(
    claim_request: ClaimRequest, settings: ProtocolSettings, in_flight: InFlightCounts
) -> ResultCode | None:
    if in_flight.paused:
        return ResultCode.PAUSED
    if settings.max_in_flight and in_flight.total >= settings.max_in_flight:
        return ResultCode.LIMIT_REACHED
    return (
        ResultCode.LIMIT_REACHED if claim_request.queue_limit and in_flight.queue >= claim_request.queue_limit else None
    )


def _final_state_and_reason(record: Record, update: TaskUpdate) -> tuple[State, str]:
    """The state and reason of an ended task: a stop of ours names the end only if ECS says a user stopped it."""
    if update.end_state is None:
        raise ValueError("the task has not ended")
    if not (record.stop_requested_by and update.stopped_by_user):
        return update.end_state, update.reason
    if record.stop_requested_by == STOPPED_BY_EXPIRY:
        state = State.FAILED if record.started_at else State.EXPIRED
        return state, _expiry_reason(record)
    if record.stop_requested_by == STOPPED_BY_TIME_LIMIT:
        return State.FAILED, reasons.TIME_LIMIT_EXCEEDED % record.time_limit
    return State.REVOKED, _stop_reason(record)


def _stop_reason(record: Record) -> str:
    return reasons.STOPPED % record.stop_requested_by


def _expiry_reason(record: Record) -> str:
    if record.reason:
        return reasons.NOT_STARTED_IN_TIME + reasons.WAITED_BECAUSE % record.reason
    if record.launch == 1 and not record.calls:
        return reasons.NOT_STARTED_IN_TIME + reasons.NEVER_CLAIMED % record.queue
    return reasons.NOT_STARTED_IN_TIME


def _has_claim(record: Record, claim_token: str) -> bool:
    return record.state is State.LAUNCHING and bool(claim_token) and record.claim == claim_token


def _set_claim(record: Record, claim_request: ClaimRequest, now: float, settings: ProtocolSettings) -> None:
    record.claim = claim_request.claim
    record.worker = claim_request.worker
    record.lease_until = now + settings.lease_seconds
    record.abandoned_claims += 1


def _clear_claim(record: Record) -> None:
    record.claim = ""
    record.lease_until = 0.0
    record.ambiguous = record.retired = False
    record.abandoned_claims = 0


def _queue_next_launch(record: Record, not_before: float) -> None:
    """QUEUED under the next number: nothing of the old launch is carried over."""
    record.state = State.QUEUED
    record.launch += 1
    record.not_before = not_before
    record.first_called_at = record.last_claim_at = 0.0
    record.args = record.target = record.container_name = record.arn = record.last_status = ""
    record.max_attempts = record.spec_version = record.version = 0
    record.launched_at = record.started_at = 0.0
    _clear_claim(record)


def _finish(record: Record, state: State, attempts: int, at: float, reason: str) -> None:
    record.state = state
    record.attempts = attempts
    record.finished_at = at
    record.reason = reason
    record.undelivered = bool(record.owner)
    record.request = b""
    record.args = ""
    record.not_before = 0.0
    _clear_claim(record)
