"""What ECS shows of a launched task: it runs, or it has ended and the request ends or is queued again."""

from __future__ import annotations

from ecs_queue.protocol import reasons
from ecs_queue.protocol.operations import ResultCode, TaskUpdate
from ecs_queue.protocol.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record
from ecs_queue.protocol.record_moves import (
    expiry_reason,
    finish,
    is_news,
    note_observation,
    queue_next_launch,
    stop_reason,
)
from ecs_queue.protocol.states import State


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


def _final_state_and_reason(record: Record, end_state: State, update: TaskUpdate) -> tuple[State, str]:
    """The state and reason of an ended task: a requested stop decides them only if ECS says that a user stopped it."""
    if not (record.stop_requested_by and update.stopped_by_user):
        return end_state, update.reason
    if record.stop_requested_by == STOPPED_BY_EXPIRY:
        return State.FAILED if record.started_at else State.EXPIRED, expiry_reason(record)
    if record.stop_requested_by == STOPPED_BY_TIME_LIMIT:
        return State.FAILED, reasons.TIME_LIMIT_EXCEEDED % record.time_limit
    return State.REVOKED, stop_reason(record)
