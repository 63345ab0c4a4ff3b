"""What a worker reports of a launch: the task that ECS started, what its call has or may have done, an empty list."""

from __future__ import annotations

from ecs_queue.protocol import assignments, reasons
from ecs_queue.protocol.operations import RefusalKind, ResultCode
from ecs_queue.protocol.poison import claimed_at, is_poison, reset_abandoned_claims
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.record_moves import (
    clear_claim,
    expiry_reason,
    finish,
    is_expired,
    queue_next_launch,
    stop_reason,
)
from ecs_queue.protocol.repeated_calls import same_answer_again
from ecs_queue.protocol.runs import Run
from ecs_queue.protocol.settings import ABSENCE_UNPROVABLE_AFTER, TIME_TOLERANCE, ProtocolSettings
from ecs_queue.protocol.states import State


def launched(record: Record, nonce: str, launch: int, arn: str, now: float, run: Run | None = None) -> ResultCode:
    """Record the task of a launch: OK, UNCHANGED, or UNWANTED when the record has no use for the task.

    If a runner has bound the launch's `run`, the record gets that runner's task.
    """
    if record.nonce != nonce or record.launch != launch:
        return ResultCode.UNWANTED
    if record.arn == arn and record.state is not State.QUEUED:
        return ResultCode.UNCHANGED
    if record.state not in (State.LAUNCHING, State.QUEUED):
        return ResultCode.UNWANTED
    record.state = State.LAUNCHED
    record.arn = run.arn if run is not None and run.boot else arn
    record.launched_at = now
    record.reason = ""
    record.not_before = 0.0
    record.calls = 0
    clear_claim(record)
    return ResultCode.OK


@same_answer_again
def call_ambiguous(
    record: Record, claim_token: str, call_completed: bool, reason: str, now: float, settings: ProtocolSettings
) -> ResultCode:
    """Note that the call may have taken effect. `call_completed`: ECS answered with a 5xx, it cannot act later."""
    if not _has_claim(record, claim_token):
        return ResultCode.CLAIM_LOST
    if not call_completed:
        record.ambiguous = True
    record.claim = ""  # nothing that this holder reports later may count as a negative fact
    record.reason = reason
    return _release_lease(record, now, settings)


@same_answer_again
def no_effect(
    record: Record,
    claim_token: str,
    wait: float,
    reason: str,
    now: float,
    settings: ProtocolSettings,
    run: Run | None = None,
) -> ResultCode:
    """Note a throttled or unsent call: the same launch number is called later, unless an earlier call is ambiguous.

    A launch with a `run` gets the next number, and the caller voids the run, unless a runner has bound it.
    """
    if not _has_claim(record, claim_token):
        return ResultCode.CLAIM_LOST
    if run is not None and run.boot:
        assignments.bind(record, run, now)
        return ResultCode.OK
    record.reason = reason
    if record.ambiguous:
        return _release_lease(record, now, settings)
    if record.stop_requested_by:
        return finish(record, State.REVOKED, record.attempt - 1, now, stop_reason(record))
    if record.run:
        queue_next_launch(record, now, wait)
        return ResultCode.OK
    record.state = State.QUEUED
    record.not_before = now + wait
    record.first_called_at = record.last_claim_at = 0.0
    clear_claim(record)
    return ResultCode.OK


@same_answer_again
def refused(
    record: Record,
    claim_token: str,
    kind: RefusalKind,
    wait: float,
    reason: str,
    max_attempts: int,
    now: float,
    settings: ProtocolSettings,
    run: Run | None = None,
) -> ResultCode:
    """Note a definitive refusal, or a call without effect because of the profile or the worker (GIVEN_BACK).

    It proves nothing about an ambiguous launch: a refusal retires the launch number, and workers only list its tasks.
    Otherwise the caller voids the `run` of the launch, unless a runner has bound it.
    """
    if not _has_claim(record, claim_token):
        return ResultCode.CLAIM_LOST
    if run is not None and run.boot:
        assignments.bind(record, run, now)
        return ResultCode.OK
    record.reason = reason
    is_uncounted = kind in (RefusalKind.CAPACITY, RefusalKind.GIVEN_BACK)
    if record.ambiguous:
        record.retired = record.retired or kind is not RefusalKind.GIVEN_BACK
        return _release_lease(record, now, settings)
    if record.stop_requested_by:
        attempts = record.attempt - 1 if is_uncounted else record.attempt
        return finish(record, State.REVOKED, attempts, now, stop_reason(record))
    if kind is RefusalKind.PERMANENT:
        return finish(record, State.FAILED, record.attempt, now, reason)
    if kind is RefusalKind.START_FAILURE:
        if record.attempt >= max_attempts:
            return finish(record, State.REMOVED, record.attempt, now, reason)
        record.attempt += 1
        record.calls = 0
        record.requeued_at = now
    return queue_next_launch(record, now, wait)


@same_answer_again
def task_absent(
    record: Record, claim_token: str, wait: float, advice: str, now: float, settings: ProtocolSettings
) -> ResultCode:
    """Note an empty list: proof from `absence_provable_at` on, and only while ECS would still list a short task.

    The list was made between the claim and `now`. So the claim itself must not be older than `absence_provable_at`,
    else a call that takes effect between the list and that time would be missed. `advice` says what to do when nothing
    can be proved any more.
    """
    if not _has_claim(record, claim_token) or record.run:  # a run decides whether its launch started
        return ResultCode.CLAIM_LOST
    if claimed_at(record, settings) < absence_provable_at(record, settings) - TIME_TOLERANCE:
        _release_lease(record, now, settings)
        return ResultCode.TOO_EARLY
    if now - record.first_called_at > ABSENCE_UNPROVABLE_AFTER:
        return finish(record, State.UNKNOWN, record.attempt, now, reasons.ABSENCE_UNPROVABLE % advice)
    attempts = record.attempt - 1
    if record.stop_requested_by:
        return finish(record, State.REVOKED, attempts, now, stop_reason(record))
    if is_poison(record, settings):
        return finish(record, State.FAILED, attempts, now, reasons.POISON % settings.max_deliveries)
    if is_expired(record, now, settings.startup_allowance):
        return finish(record, State.EXPIRED, attempts, now, expiry_reason(record))
    return queue_next_launch(record, now, wait)


def absence_provable_at(record: Record, settings: ProtocolSettings) -> float:
    """Return the time from which an empty list proves that no task was started."""
    return record.last_claim_at + settings.lease_seconds + settings.settle_seconds


def _has_claim(record: Record, claim_token: str) -> bool:
    return record.state is State.LAUNCHING and bool(claim_token) and record.claim == claim_token


def _release_lease(record: Record, now: float, settings: ProtocolSettings) -> ResultCode:
    """The record stays LAUNCHING: the next worker resolves the launch."""
    record.lease_until = now
    reset_abandoned_claims(record, settings)
    return ResultCode.OK
