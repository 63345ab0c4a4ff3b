"""The rules of the launch protocol as pure functions over one record (docs/protocol.md).

Each function decides one atomic operation: it takes the record, changes it in place and returns a `ResultCode`; `now`
is the ledger's clock. The in-memory ledger calls these functions, the Redis ledger runs the same rules in Lua; one
conformance suite and a random comparison keep both equal.

Positive facts ("task X exists for launch n") are accepted from any worker; negative facts ("nothing was started") only
from the holder of the claim, and only while no earlier call of the launch is ambiguous.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ecs_queue.protocol import assignments, reasons
from ecs_queue.protocol.operations import ONLY_QUEUED, ClaimRequest, InFlightCounts, RefusalKind, ResultCode, TaskUpdate
from ecs_queue.protocol.poison import claimed_at, is_poison, reset_abandoned_claims
from ecs_queue.protocol.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record, Submission, build_client_token
from ecs_queue.protocol.record_moves import (
    build_tombstone as build_tombstone,
)
from ecs_queue.protocol.record_moves import (
    clear_claim,
    expiry_reason,
    finish,
    freeze,
    is_delayed,
    is_expired,
    is_news,
    note_observation,
    queue_next_launch,
    stop_reason,
)
from ecs_queue.protocol.repeated_calls import same_answer_again
from ecs_queue.protocol.runs import Run
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


@same_answer_again
def claim(
    record: Record,
    claim_request: ClaimRequest | None,
    now: float,
    settings: ProtocolSettings,
    in_flight: InFlightCounts,
    find_idle_run: Callable[[], Run | None] = lambda: None,
) -> ResultCode:
    """Claim a due QUEUED record: RUN_TASK, ASSIGNED, NO_RUNNER, ENDED, PAUSED, LIMIT_REACHED or NOT_CLAIMABLE.

    `find_idle_run` returns a run that may take a request of the claim's pool. After RUN_TASK the caller makes the run
    that the record names, if it names one.

    Without a `claim_request`, a record that has expired is ended and nothing else is done. A stopped record is never
    QUEUED: the operation that would queue it again ends it instead.
    """
    if record.state is not State.QUEUED:
        return ResultCode.NOT_CLAIMABLE
    if is_expired(record, now, settings.startup_allowance):
        return finish(record, State.EXPIRED, record.attempt - 1, now, expiry_reason(record))
    if claim_request is None or record.not_before > now or is_delayed(record, now):
        return ResultCode.NOT_CLAIMABLE
    if claim_request.nonce and (claim_request.nonce, claim_request.launch) != (record.nonce, record.launch):
        return ResultCode.NOT_CLAIMABLE
    obstacle = _find_claim_obstacle(claim_request, settings, in_flight)
    if obstacle is not None:
        return _wait_for_room(record, *obstacle, now)
    if claim_request.pool and (idle_run := find_idle_run()) is not None:
        return assignments.assign(record, idle_run, claim_request, now)
    if claim_request.pool and not claim_request.may_call:
        return ResultCode.NO_RUNNER
    if _is_start_limit_reached(claim_request, in_flight):
        return _wait_for_room(record, ResultCode.LIMIT_REACHED, reasons.TOO_MANY_STARTING, now)
    if not record.args:
        # Arguments that an earlier claim of this launch froze without a run start a task of its own.
        record.run = build_client_token(record.id, record.nonce, record.launch) if claim_request.pool else ""
        freeze(record, claim_request)
    record.state = State.LAUNCHING
    record.not_before = 0.0
    record.calls += 1
    record.first_called_at = record.last_claim_at = now
    _set_claim(record, claim_request, now, settings)
    return ResultCode.RUN_TASK


@same_answer_again
def reclaim(
    record: Record,
    claim_request: ClaimRequest,
    now: float,
    settings: ProtocolSettings,
    is_holder_alive: bool,
    run: Run | None = None,
) -> ResultCode:
    """Take over a LAUNCHING record whose lease is over: RUN_TASK again, only LIST_TASKS, ENDED or NOT_CLAIMABLE.

    Nothing is listed for a launch that a `run` has: it is voided, so REQUEUED or ENDED; or a runner has bound it, so
    NOT_CLAIMABLE.

    A live former holder (`is_holder_alive`: it sent a heartbeat lately) lost the ledger's reply and did not die of the
    record. RunTask is never called again for a poison request; when listing its tasks kills workers too, it ENDED.
    """
    if record.state is not State.LAUNCHING or record.lease_until > now:
        return ResultCode.NOT_CLAIMABLE
    if run is not None and run.boot:
        assignments.bind(record, run, now)
        return ResultCode.NOT_CLAIMABLE
    if is_holder_alive:
        record.abandoned_claims = max(0, record.abandoned_claims - 1)
    if record.abandoned_claims > LIST_DELIVERIES_FACTOR * settings.max_deliveries:
        reason = reasons.POISON % settings.max_deliveries + reasons.POISON_TASK_UNKNOWN
        return finish(record, State.UNKNOWN, record.attempt, now, reason)
    record.ambiguous = True
    _set_claim(record, claim_request, now, settings)
    if is_poison(record, settings):
        record.retired = True
        record.reason = reasons.POISON % settings.max_deliveries
    if is_list_only(record, now, settings.startup_allowance):
        return assignments.give_up(record, run, now, settings) if record.run else ResultCode.LIST_TASKS
    record.calls += 1
    record.last_claim_at = now
    return ResultCode.RUN_TASK


def is_list_only(record: Record, now: float, startup_allowance: float) -> bool:
    """Return whether a worker that takes over a LAUNCHING record must list its tasks and not call RunTask."""
    return (
        bool(record.stop_requested_by)
        or record.retired
        or is_expired(record, now, startup_allowance)
        or now - record.first_called_at >= LIST_ONLY_AFTER
    )


def absence_provable_at(record: Record, settings: ProtocolSettings) -> float:
    """Return the time from which an empty list proves that no task was started."""
    return record.last_claim_at + settings.lease_seconds + settings.settle_seconds


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

    A launch that a `run` has takes the next number: its run is voided, unless a runner has bound it.
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
    """Note a definitive refusal, or a call that had no effect for a trouble of the profile or the worker (GIVEN_BACK).

    Of an ambiguous launch it proves nothing. A refusal retires its number: only lists follow. The `run` of the launch
    is voided, unless a runner has bound it.
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


def update_task(record: Record, update: TaskUpdate, now: float) -> ResultCode:
    """Record what ECS shows of the task: OK, REQUEUED, ENDED, or STALE when the record has newer facts.

    A runner's task is not the request's own: STALE, `assignments.update_runner_task` has it.
    """
    if record.run or not is_news(record, update):
        return ResultCode.STALE
    note_observation(record, update)
    record.started_at = update.started_at or record.started_at
    if update.end_state is None:
        return ResultCode.OK
    may_relaunch = record.attempt < update.max_attempts or not update.counts_attempt
    if update.may_relaunch and not record.stop_requested_by and may_relaunch:
        record.attempt += int(update.counts_attempt)
        record.reason = update.reason
        record.calls = 0
        return queue_next_launch(record, now, update.wait)
    state, reason = _final_state_and_reason(record, update.end_state, update)
    record.exit_code = update.exit_code
    record.stop_code = update.stop_code
    return finish(record, state, record.attempt, update.finished_at or now, reason)


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


def _find_claim_obstacle(
    claim_request: ClaimRequest, settings: ProtocolSettings, in_flight: InFlightCounts
) -> tuple[ResultCode, str] | None:
    if in_flight.paused:
        return ResultCode.PAUSED, reasons.QUEUE_PAUSED
    if settings.max_in_flight and in_flight.total >= settings.max_in_flight:
        return ResultCode.LIMIT_REACHED, reasons.NAMESPACE_FULL
    if claim_request.queue_limit and in_flight.queue >= claim_request.queue_limit:
        return ResultCode.LIMIT_REACHED, reasons.QUEUE_FULL
    return None


def _is_start_limit_reached(claim_request: ClaimRequest, in_flight: InFlightCounts) -> bool:
    return bool(claim_request.max_starting) and in_flight.starting >= claim_request.max_starting


def _wait_for_room(record: Record, code: ResultCode, reason: str, now: float) -> ResultCode:
    record.not_before = now + CLAIM_RETRY_SECONDS
    record.reason = reason
    return code


def _final_state_and_reason(record: Record, end_state: State, update: TaskUpdate) -> tuple[State, str]:
    """The state and reason of an ended task: a requested stop decides them only if ECS says that a user stopped it."""
    if not (record.stop_requested_by and update.stopped_by_user):
        return end_state, update.reason
    if record.stop_requested_by == STOPPED_BY_EXPIRY:
        return State.FAILED if record.started_at else State.EXPIRED, expiry_reason(record)
    if record.stop_requested_by == STOPPED_BY_TIME_LIMIT:
        return State.FAILED, reasons.TIME_LIMIT_EXCEEDED % record.time_limit
    return State.REVOKED, stop_reason(record)


def _has_claim(record: Record, claim_token: str) -> bool:
    return record.state is State.LAUNCHING and bool(claim_token) and record.claim == claim_token


def _set_claim(record: Record, claim_request: ClaimRequest, now: float, settings: ProtocolSettings) -> None:
    record.claim, record.last_answer = claim_request.claim, ""
    record.worker = claim_request.worker
    record.lease_until = now + settings.lease_seconds
    record.abandoned_claims += 1


def _release_lease(record: Record, now: float, settings: ProtocolSettings) -> ResultCode:
    """The record stays LAUNCHING: the next worker resolves the launch."""
    record.lease_until = now
    reset_abandoned_claims(record, settings)
    return ResultCode.OK
