"""What several operations do with a record: end it, queue its next launch, clear its claim."""

from __future__ import annotations

from ecs_queue.protocol import reasons
from ecs_queue.protocol.operations import ClaimRequest, ResultCode, TaskUpdate
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.protocol.task_order import STATUS_RANKS, compare_observations, status_rank


def is_expired(record: Record, now: float, startup_allowance: float) -> bool:
    """Return whether the record's time to start is over."""
    return bool(record.expires_at) and now + startup_allowance >= record.expires_at


def start_deadline(record: Record) -> float:
    """Return when the task of a LAUNCHED record must have started; 0 if nothing limits it."""
    return record.launched_at + record.start_timeout if record.start_timeout and record.launched_at else 0.0


def is_start_overdue(record: Record, now: float) -> bool:
    """Return whether the deadline for the start of a LAUNCHED record's task has passed, started or not."""
    deadline = start_deadline(record)
    return bool(deadline) and now >= deadline


def is_starting(record: Record) -> bool:
    """Return whether the record counts for its queue's `max_starting`: its task may exist and does not run yet."""
    is_in_flight = record.state is State.LAUNCHING or (record.state is State.LAUNCHED and not record.started_at)
    return bool(record.max_starting) and is_in_flight and status_rank(record.last_status) < STATUS_RANKS["RUNNING"]


def waits_since(record: Record) -> float:
    """Return since when a request waits: its submission, or the time that it was delayed to."""
    return max(record.created_at, record.delayed_until)


def queued_at(record: Record) -> float:
    """Return since when it waits for its present launch: as `waits_since`, or since its last attempt was over."""
    return max(waits_since(record), record.requeued_at)


def is_delayed(record: Record, now: float) -> bool:
    """Return whether the request asked not to be launched yet."""
    return record.delayed_until > now


def stop_reason(record: Record) -> str:
    """Return the reason of a requested stop."""
    return reasons.STOPPED % record.stop_requested_by


def expiry_reason(record: Record) -> str:
    """Return why the record was not started in time."""
    if record.reason:
        return reasons.NOT_STARTED_IN_TIME + reasons.WAITED_BECAUSE % record.reason
    if record.launch == 1 and not record.calls:
        return reasons.NOT_STARTED_IN_TIME + reasons.NEVER_CLAIMED % record.queue
    return reasons.NOT_STARTED_IN_TIME


def clear_claim(record: Record) -> None:
    """Clear the claim and all fields that belong to it."""
    record.waits_for_key = False
    record.claim = record.last_answer = ""
    record.lease_until = 0.0
    record.ambiguous = record.retired = False
    record.abandoned_claims = 0


def freeze(record: Record, claim_request: ClaimRequest) -> None:
    """Keep what this launch sends, and what following its task needs."""
    record.args, record.target = claim_request.args, claim_request.target
    record.container_name, record.max_attempts = claim_request.container_name, claim_request.max_attempts
    record.spec_version, record.start_timeout = claim_request.spec_version, claim_request.start_timeout
    record.retry_rules, record.max_starting = claim_request.retry_rules, claim_request.max_starting
    record.variant, record.variant_reason = claim_request.variant, claim_request.variant_reason


def queue_next_launch(record: Record, now: float, wait: float = 0.0) -> ResultCode:
    """QUEUED under the next number, due in `wait` seconds: nothing of the old launch is carried over."""
    if record.arn:
        record.requeued_at = now
    record.state = State.QUEUED
    record.launch += 1
    record.not_before = now + wait
    record.first_called_at = record.last_claim_at = 0.0
    record.args = record.target = record.container_name = record.arn = record.last_status = ""
    record.run = record.retry_rules = record.variant_reason = ""
    record.variant = record.max_attempts = record.spec_version = record.version = record.max_starting = 0
    record.launched_at = record.started_at = record.start_timeout = 0.0
    clear_claim(record)
    return ResultCode.REQUEUED


def finish(record: Record, state: State, attempts: int, at: float, reason: str) -> ResultCode:
    """Bring the record to a terminal state: ENDED."""
    record.state = state
    record.attempts = attempts
    record.finished_at = at
    record.reason = reason
    record.undelivered = bool(record.owner)
    record.request = b""
    record.args = ""
    record.not_before = 0.0
    clear_claim(record)
    return ResultCode.ENDED


def is_news(record: Record, update: TaskUpdate) -> bool:
    """Return whether an update is of the record's present task, and later than what the record has."""
    if record.state is not State.LAUNCHED or record.launch != update.launch or record.arn != update.arn:
        return False
    order = compare_observations(update.version, update.last_status, record.version, record.last_status)
    has_fact = update.end_state is not None or (update.started_at > 0 and not record.started_at)
    return order > 0 or (order == 0 and has_fact)


def note_observation(record: Record, update: TaskUpdate) -> None:
    """Note the version and status that ECS shows."""
    record.version = max(record.version, update.version)
    record.last_status = update.last_status
