"""Which worker may launch a request, and how: the first claim of a launch, and its takeover when the lease is over."""

from __future__ import annotations

from collections.abc import Callable

from ecs_queue.protocol import assignments, reasons
from ecs_queue.protocol.concurrency_keys import NO_LIMIT, KeyRoom, wait_for_slot
from ecs_queue.protocol.operations import ClaimRequest, InFlightCounts, ResultCode
from ecs_queue.protocol.poison import is_poison
from ecs_queue.protocol.record import Record, build_client_token
from ecs_queue.protocol.record_moves import expiry_reason, finish, freeze, is_delayed, is_expired
from ecs_queue.protocol.repeated_calls import same_answer_again
from ecs_queue.protocol.runs import Run
from ecs_queue.protocol.settings import CLAIM_RETRY_SECONDS, LIST_DELIVERIES_FACTOR, LIST_ONLY_AFTER, ProtocolSettings
from ecs_queue.protocol.states import State


@same_answer_again
def claim(
    record: Record,
    claim_request: ClaimRequest | None,
    now: float,
    settings: ProtocolSettings,
    in_flight: InFlightCounts,
    find_idle_run: Callable[[], Run | None] = lambda: None,
    find_key_room: Callable[[], KeyRoom] = lambda: NO_LIMIT,
) -> ResultCode:
    """Claim a due QUEUED record: RUN_TASK, ASSIGNED, NO_RUNNER, ENDED, PAUSED, LIMIT_REACHED, KEY_FULL, NOT_CLAIMABLE.

    `find_idle_run` returns a run that may take a request of the claim's pool. After RUN_TASK the caller makes the run
    that the record names, if it names one. `find_key_room` returns what limits the requests of the record's key.

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
    if (room := find_key_room()).is_full:
        wait_for_slot(record, room, now)
        return ResultCode.KEY_FULL
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

    A launch with a `run` needs no list. If a runner has bound the run: NOT_CLAIMABLE. If not, and RunTask may not be
    called again, the caller voids the run: REQUEUED or ENDED.

    `is_holder_alive`: the former holder sent a heartbeat lately. It lost the ledger's reply and did not die of the
    record, so its claim does not count as abandoned. RunTask is never called again for a poison request. If listing its
    tasks kills workers, too: ENDED.
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


def _set_claim(record: Record, claim_request: ClaimRequest, now: float, settings: ProtocolSettings) -> None:
    record.claim, record.last_answer, record.waits_for_key = claim_request.claim, "", False
    record.worker = claim_request.worker
    record.lease_until = now + settings.lease_seconds
    record.abandoned_claims += 1
