"""How a record and the run that has its launch change together: the launchers' side of warm pools (docs/protocol.md).

The run decides. An operation takes a record out of a launch that a run has in three cases only: it voids an ASSIGNED
run, it takes the end of an ENDED one, or ECS shows that the runner's task has stopped. It changes both at once. Each
function changes the record and its run in place; `now` is the ledger's clock. `run` is the run whose assignment is the
record's present launch; None if there is none: an absent run counts as closed.
"""

from __future__ import annotations

import msgspec

from ecs_queue.protocol import reasons
from ecs_queue.protocol.operations import ClaimRequest, EndRuling, ResultCode, SettleRequest, TaskUpdate
from ecs_queue.protocol.poison import is_poison
from ecs_queue.protocol.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record, build_client_token
from ecs_queue.protocol.record_moves import (
    clear_claim,
    expiry_reason,
    finish,
    freeze,
    is_expired,
    is_news,
    is_start_overdue,
    note_observation,
    queue_next_launch,
    stop_reason,
)
from ecs_queue.protocol.runs import CLOSED_BY_ECS, CLOSED_BY_STOP, CLOSED_BY_VOID, Run, RunEnd, RunPhase, is_free
from ecs_queue.protocol.settings import CANCEL_GRACE_SECONDS, ProtocolSettings
from ecs_queue.protocol.states import State


class RunChange(msgspec.Struct, kw_only=True):
    """What an operation has done with a record and its run.

    Attributes:
        due_at: When the record is due next; None leaves it.
        deletes: Whether the run is to be deleted: no process has bound it.
        wakes: Whether its runner is to be woken.
        is_idle: Whether its runner may take another request now.
    """

    code: ResultCode
    due_at: float | None = None
    deletes: bool = False
    wakes: bool = False
    is_idle: bool = False


def may_take(run: Run, claim_request: ClaimRequest, own_name: str, now: float, settings: ProtocolSettings) -> bool:
    """Return whether a run may be assigned the request of a claim; `own_name` is that of the record's launch."""
    return is_free(run, now, settings.runner_ttl) and run.name != own_name and run.target == claim_request.target


def assign(record: Record, run: Run, claim_request: ClaimRequest, now: float) -> ResultCode:
    """Give a QUEUED record to an idle run, without a call: the record is LAUNCHED, under the same launch number."""
    freeze(record, claim_request)
    record.start_timeout, record.max_starting = 0.0, 0  # its runner has started
    record.worker = claim_request.worker
    record.run = run.name
    _launch_by(record, run, now)
    run.phase, run.turn = RunPhase.ASSIGNED, run.turn + 1
    _set_assignment(run, record, claim_request, now)
    return ResultCode.ASSIGNED


def make_run(record: Record, claim_request: ClaimRequest, now: float) -> Run:
    """Return the run of a launch that is about to start a runner."""
    name = build_client_token(record.id, record.nonce, record.launch)
    run = Run(name=name, pool=claim_request.pool, target=record.target, born_at=now)
    _set_assignment(run, record, claim_request, now)
    return run


def _set_assignment(run: Run, record: Record, claim_request: ClaimRequest, now: float) -> None:
    run.id, run.nonce, run.launch = record.id, record.nonce, record.launch
    run.payload, run.time_limit, run.assigned_at = claim_request.payload, record.time_limit, now


def bind(record: Record, run: Run, now: float) -> None:
    """Record the runner's task: a runner may fetch and end its command before RunTask's answer is recorded."""
    if record.state is State.LAUNCHING:
        _launch_by(record, run, now)
    record.arn = run.arn
    record.started_at = record.started_at or run.fetched_at


def _launch_by(record: Record, run: Run, now: float) -> None:
    record.state, record.arn, record.launched_at = State.LAUNCHED, run.arn, now
    record.reason, record.not_before, record.calls = "", 0.0, 0
    clear_claim(record)


def void(run: Run, arn: str, now: float) -> bool:
    """Take an ASSIGNED run's assignment away: that launch provably never starts, whatever ECS does.

    Args:
        run: The run.
        arn: Of the task that RunTask has started for it; "" if that is not known, or the task has stopped.
        now: The ledger's clock.

    Returns:
        Whether the run is to be deleted. Otherwise it is closed: its runner exits at its next call. If the runner never
        calls, workers find its task by the run.
    """
    if not run.boot:
        if not arn:
            return True
        run.arn, run.seen_at = arn, now
    release(run)
    run.closed = run.closed or CLOSED_BY_VOID
    return False


def release(run: Run) -> None:
    """Remove a finished assignment from its run."""
    run.phase, run.cancelled, run.cancel = RunPhase.IDLE, False, False
    run.id = run.nonce = run.payload = run.mac = ""
    run.launch = run.exit_code = 0
    run.time_limit = run.assigned_at = run.fetched_at = run.ended_at = 0.0


def give_up(record: Record, run: Run | None, now: float, settings: ProtocolSettings) -> ResultCode:
    """End or requeue a LAUNCHING record for which RunTask may not be called again, and whose run is not bound.

    The caller voids the run: that launch provably never starts.
    """
    if run is None:
        return finish(record, State.UNKNOWN, record.attempt, now, reasons.RUN_LOST)
    if record.stop_requested_by:
        return _finish_stopped(record, now)
    if is_poison(record, settings):
        return finish(record, State.FAILED, record.attempt - 1, now, reasons.POISON % settings.max_deliveries)
    if is_expired(record, now, settings.startup_allowance):
        return finish(record, State.EXPIRED, record.attempt - 1, now, expiry_reason(record))
    return queue_next_launch(record, now)


def settle(
    record: Record, run: Run | None, request: SettleRequest, now: float, settings: ProtocolSettings
) -> RunChange:
    """Bring a record in line with its run: OK, ENDED, REQUEUED, DESCRIBE_TASK, STOP_TASK, END_UNREAD or STALE."""
    if record.state not in (State.LAUNCHING, State.LAUNCHED) or not record.run:
        return RunChange(code=ResultCode.STALE)
    if run is None:
        is_launched = record.state is State.LAUNCHED
        return RunChange(code=ResultCode.DESCRIBE_TASK if is_launched else ResultCode.OK)
    _bring_forward(record, run, now)
    if run.boot:
        bind(record, run, now)
    if run.phase is RunPhase.ENDED:
        lacks_ruling = needs_ruling(record, run.end) and request.ruling is EndRuling.UNKNOWN
        if request.end != run.end or (request.is_verified and lacks_ruling):
            return RunChange(code=ResultCode.END_UNREAD, due_at=now)
        if request.is_verified:
            return _take_end(record, run, request, now)
        run.phase, run.exit_code, run.cancelled, run.mac, run.ended_at = RunPhase.FETCHED, 0, False, "", 0.0
    if record.stop_requested_by and (run.phase is RunPhase.ASSIGNED or not run.cancel):
        # A client of a version without runs has requested the stop.
        change = stop(record, run, record.stop_requested_by, now, settings)
        change.code = ResultCode.OK if change.code is not ResultCode.ENDED else ResultCode.ENDED
        return change
    if run.phase is RunPhase.ASSIGNED:
        return _settle_assigned(record, run, request.wait, now, settings)
    return _settle_fetched(record, run, now, settings)


def _bring_forward(record: Record, run: Run, now: float) -> None:
    """Replace times in the future by now: the clock has gone back, and no rule may wait until it has caught up."""
    run.seen_at, run.assigned_at = min(run.seen_at, now), min(run.assigned_at, now)
    run.fetched_at = min(run.fetched_at, now)
    record.stop_requested_at = min(record.stop_requested_at, now)


def needs_ruling(record: Record, end: RunEnd | None) -> bool:
    """Return whether the record's retry rules decide what follows the end that its runner has reported."""
    return bool(record.retry_rules) and end is not None and end.exit_code != 0 and not end.cancelled


def _take_end(record: Record, run: Run, request: SettleRequest, now: float) -> RunChange:
    exit_code, is_cancelled, ended_at = run.exit_code, run.cancelled, run.ended_at
    release(run)
    change = RunChange(code=ResultCode.ENDED, is_idle=not run.closed)
    reason = reasons.COMMAND_EXITED % exit_code
    has_failed = exit_code != 0 and not is_cancelled
    counts_attempt = request.ruling is not EndRuling.RETRY_UNCOUNTED
    retries = record.relaunch == "any_failure"
    if record.retry_rules:
        retries = request.ruling in (EndRuling.RETRY, EndRuling.RETRY_UNCOUNTED)
    if has_failed and retries and _may_try_again(record, counts_attempt=counts_attempt):
        _relaunch(record, reason, now, request.wait, counts_attempt=counts_attempt)
        change.code, change.due_at = ResultCode.REQUEUED, record.not_before
        return change
    state = State.FAILED if exit_code else State.SUCCESS
    if is_cancelled:
        state, reason = _stopped_state_and_reason(record, reasons.CANCELLED)
    record.exit_code = exit_code
    finish(record, state, record.attempt, ended_at, reason)
    return change


def _settle_assigned(record: Record, run: Run, wait: float, now: float, settings: ProtocolSettings) -> RunChange:
    if is_expired(record, now, settings.startup_allowance):
        deletes = void(run, record.arn, now)
        finish(record, State.EXPIRED, record.attempt - 1, now, expiry_reason(record))
        return RunChange(code=ResultCode.ENDED, deletes=deletes)
    if not run.boot and is_start_overdue(record, now):  # no process of its task has called
        deletes = void(run, record.arn, now)
        return _fail_start(record, reasons.START_TIMED_OUT % record.start_timeout, now, now, wait, deletes=deletes)
    late_at = run.assigned_at + settings.runner_ttl
    if run.turn > 1 and now >= late_at:
        deletes = void(run, record.arn, now)
        _relaunch(record, reasons.NOT_FETCHED, now, 0.0, counts_attempt=False)
        return RunChange(code=ResultCode.REQUEUED, due_at=now, deletes=deletes)
    return _look_again(record, run, now, settings, late_at if run.turn > 1 else 0.0)


def _settle_fetched(record: Record, run: Run, now: float, settings: ProtocolSettings) -> RunChange:
    limit_at = run.fetched_at + record.time_limit if record.time_limit else 0.0
    if limit_at and now >= limit_at and not record.stop_requested_by:
        return _cancel(record, run, STOPPED_BY_TIME_LIMIT, now, settings, ResultCode.OK)
    stop_at = record.stop_requested_at + settings.stop_timeout + CANCEL_GRACE_SECONDS
    if record.stop_requested_by and now >= stop_at:
        run.closed = run.closed or CLOSED_BY_STOP
        return RunChange(code=ResultCode.STOP_TASK)
    return _look_again(record, run, now, settings, stop_at if record.stop_requested_by else limit_at)


def _look_again(record: Record, run: Run, now: float, settings: ProtocolSettings, other_at: float) -> RunChange:
    """Return DESCRIBE_TASK for a run that is not bound, or whose runner is silent.

    Otherwise the record is due when the runner would be silent, or at `other_at`, if that is sooner; 0: not.
    """
    if record.state is not State.LAUNCHED:
        return RunChange(code=ResultCode.OK)
    silent_at = run.seen_at + settings.runner_ttl
    if not run.boot or now >= silent_at:
        return RunChange(code=ResultCode.DESCRIBE_TASK)
    return RunChange(code=ResultCode.OK, due_at=min(silent_at, other_at) if other_at else silent_at)


def stop(record: Record, run: Run | None, requested_by: str, now: float, settings: ProtocolSettings) -> RunChange:
    """Stop a live record that has a run: ENDED at once if its command was not taken, else STOP_REQUESTED or STALE."""
    if run is not None and run.phase is RunPhase.FETCHED:
        if requested_by == STOPPED_BY_EXPIRY:  # it has started
            return RunChange(code=ResultCode.STALE)
        return _cancel(record, run, requested_by, now, settings, ResultCode.STOP_REQUESTED)
    _mark_stop(record, requested_by, now)
    if run is None or run.phase is not RunPhase.ASSIGNED:
        return RunChange(code=ResultCode.STOP_REQUESTED, due_at=max(now, record.lease_until))
    deletes = void(run, record.arn, now)
    return RunChange(code=_finish_stopped(record, now), deletes=deletes)


def put_back(record: Record, run: Run | None, now: float) -> RunChange:
    """Queue a record again whose runner has not taken its command: REQUEUED, with the next launch; else STALE."""
    is_assigned = run is not None and run.phase is RunPhase.ASSIGNED
    if run is None or not is_assigned or record.stop_requested_by:  # `settle` carries a stop out
        return RunChange(code=ResultCode.STALE)
    deletes = void(run, record.arn, now)
    _relaunch(record, reasons.POOL_DRAINED, now, 0.0, counts_attempt=False)
    return RunChange(code=ResultCode.REQUEUED, due_at=record.not_before, deletes=deletes)


def _finish_stopped(record: Record, now: float) -> ResultCode:
    """End a record that is to be stopped, and whose run is voided."""
    is_expiry = record.stop_requested_by == STOPPED_BY_EXPIRY
    reason = expiry_reason(record) if is_expiry else stop_reason(record)
    return finish(record, State.EXPIRED if is_expiry else State.REVOKED, record.attempt - 1, now, reason)


def _cancel(
    record: Record, run: Run, requested_by: str, now: float, settings: ProtocolSettings, code: ResultCode
) -> RunChange:
    _mark_stop(record, requested_by, now)
    run.cancel = True
    stop_at = record.stop_requested_at + settings.stop_timeout + CANCEL_GRACE_SECONDS
    return RunChange(code=code, due_at=max(now, stop_at, record.lease_until), wakes=True)


def _mark_stop(record: Record, requested_by: str, now: float) -> None:
    record.stop_requested_by = record.stop_requested_by or requested_by
    record.stop_requested_at = record.stop_requested_at or now


def update_runner_task(record: Record, run: Run | None, update: TaskUpdate, now: float) -> RunChange:
    """Record what ECS shows of the runner's task: OK, REQUEUED, ENDED, or STALE when record or run have newer facts.

    That it has stopped proves only that the runner is dead: never SUCCESS, never an exit code.
    """
    if not record.run or not is_news(record, update):
        return RunChange(code=ResultCode.STALE)
    has_ended = update.end_state is not None
    if has_ended and run is not None and (run.phase is RunPhase.ENDED or (run.boot and run.arn != update.arn)):
        return RunChange(code=ResultCode.STALE, due_at=now)
    note_observation(record, update)
    if not has_ended:
        return RunChange(code=ResultCode.OK, due_at=now + update.wait)
    if run is not None and run.phase is RunPhase.ASSIGNED:
        return _note_unfetched_end(record, run, update, now)
    if run is not None:
        release(run)
        run.closed = run.closed or CLOSED_BY_ECS
    record.stop_code = update.stop_code
    # The command may have run, whatever ECS shows of the task: a rule for what never started does not apply.
    may_have_run = record.relaunch != "never_started" or (record.retry_rules and update.end_state is not State.REMOVED)
    may_relaunch = update.may_relaunch and may_have_run and not update.stopped_by_user
    if may_relaunch and _may_try_again(record, counts_attempt=update.counts_attempt):
        reason = reasons.RUNNER_STOPPED + update.reason
        _relaunch(record, reason, now, update.wait, counts_attempt=update.counts_attempt)
        return RunChange(code=ResultCode.REQUEUED, due_at=record.not_before)
    state, reason = State.FAILED, reasons.RUNNER_STOPPED + update.reason
    if update.end_state is State.UNKNOWN:
        state, reason = State.UNKNOWN, update.reason
    elif update.stopped_by_user and record.stop_requested_by:
        state, reason = _stopped_state_and_reason(record, reason)
    finish(record, state, record.attempt, update.finished_at or now, reason)
    return RunChange(code=ResultCode.ENDED)


def _note_unfetched_end(record: Record, run: Run, update: TaskUpdate, now: float) -> RunChange:
    """Handle a command that was never started: a failed start on the first turn, else only QUEUED again."""
    is_first = run.turn == 1
    deletes = void(run, "", now)
    if record.stop_requested_by:
        return RunChange(code=_finish_stopped(record, now), deletes=deletes)
    if is_first and record.retry_rules and not update.may_relaunch:
        record.stop_code = update.stop_code
        finish(record, State.REMOVED, record.attempt, update.finished_at or now, update.reason)
        return RunChange(code=ResultCode.ENDED, deletes=deletes)
    counts_attempt = is_first and update.counts_attempt
    if counts_attempt:
        record.stop_code = update.stop_code
        return _fail_start(record, update.reason, update.finished_at or now, now, update.wait, deletes=deletes)
    _relaunch(record, update.reason, now, update.wait if is_first else 0.0, counts_attempt=False)
    return RunChange(code=ResultCode.REQUEUED, due_at=record.not_before, deletes=deletes)


def _fail_start(record: Record, reason: str, ended_at: float, now: float, wait: float, *, deletes: bool) -> RunChange:
    """Count an attempt that has started nothing: REMOVED if it was the last one, else QUEUED again."""
    if record.attempt >= max(1, record.max_attempts):
        finish(record, State.REMOVED, record.attempt, ended_at, reason)
        return RunChange(code=ResultCode.ENDED, deletes=deletes)
    _relaunch(record, reason, now, wait, counts_attempt=True)
    return RunChange(code=ResultCode.REQUEUED, due_at=record.not_before, deletes=deletes)


def _stopped_state_and_reason(record: Record, otherwise: str) -> tuple[State, str]:
    if record.stop_requested_by == STOPPED_BY_TIME_LIMIT:
        return State.FAILED, reasons.TIME_LIMIT_EXCEEDED % record.time_limit
    if record.stop_requested_by in ("", STOPPED_BY_EXPIRY):
        return State.FAILED, otherwise
    return State.REVOKED, stop_reason(record)


def _may_try_again(record: Record, *, counts_attempt: bool) -> bool:
    has_attempts = record.attempt < max(1, record.max_attempts) or not counts_attempt
    return not record.stop_requested_by and has_attempts


def _relaunch(record: Record, reason: str, now: float, wait: float, *, counts_attempt: bool) -> None:
    if counts_attempt:
        record.attempt, record.requeued_at = record.attempt + 1, now
    record.reason = reason
    record.calls = 0
    record.stop_code = ""
    queue_next_launch(record, now, wait)
