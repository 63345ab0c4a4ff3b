"""The launcher's decisions, pure: what to write after a RunTask call, and what a look at a task means.

Given the same record, answer, clock and random source, the decision is the same: nothing here does I/O.
"""

from __future__ import annotations

import random
from enum import StrEnum

import msgspec

from ecs_queue.core.answers import Kind, RunAnswer
from ecs_queue.core.protocol import Outcome, RefusalKind
from ecs_queue.core.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record
from ecs_queue.core.retry import Backoff
from ecs_queue.core.states import State
from ecs_queue.core.verdict import Observation


class Write(StrEnum):
    """The ledger operation that follows a RunTask call."""

    LAUNCHED = "launched"
    NO_EFFECT = "no_effect"
    UNSURE = "unsure"
    REFUSED = "refused"
    ASK = "ask"
    """The token was used with other arguments: describe the tasks it names before anything is written."""


class AfterCall(msgspec.Struct, frozen=True, kw_only=True):
    """What to write after a call. `wait`: seconds; `answered`: "1" when ECS itself ended the call."""

    write: Write
    reason: str = ""
    wait: float = 0.0
    answered: str = ""
    refusal: RefusalKind = RefusalKind.PERMANENT
    opens_circuit: bool = False


_REFUSALS = {
    Kind.CAPACITY: RefusalKind.CAPACITY,
    Kind.START_FAILURE: RefusalKind.START_FAILURE,
    Kind.PERMANENT: RefusalKind.PERMANENT,
}


def after_call(answer: RunAnswer, record: Record, backoff: Backoff, rng: random.Random) -> AfterCall:
    """One decision for each kind of answer (DESIGN.md, invariants 2 and 3)."""
    if answer.kind is Kind.STARTED:
        return AfterCall(write=Write.LAUNCHED)
    wait = backoff.delay(record.calls, rng)
    reason = answer.reason or answer.code
    if answer.kind is Kind.CONFLICT:
        return AfterCall(write=Write.ASK, reason=reason, wait=wait)
    if answer.kind in _REFUSALS:
        return AfterCall(write=Write.REFUSED, reason=reason, wait=wait, refusal=_REFUSALS[answer.kind])
    if answer.kind is Kind.AMBIGUOUS:
        return AfterCall(write=Write.UNSURE, reason=reason, wait=wait)
    if answer.kind is Kind.ANSWERED_5XX:
        return AfterCall(write=Write.UNSURE, reason=reason, wait=wait, answered="1")
    return AfterCall(write=Write.NO_EFFECT, reason=reason, wait=wait, opens_circuit=answer.kind is Kind.PROFILE)


def is_news(record: Record, seen: Observation) -> bool:
    """Whether the ledger does not know this yet."""
    if seen.version and record.version:
        return seen.version > record.version
    return seen.ended or seen.last_status != record.last_status or bool(seen.started_at) != bool(record.started_at)


def outcome_of(record: Record, seen: Observation, max_attempts: int, wait: float, retry_wait: float) -> Outcome:
    """What the ledger is told of a look. `wait`: seconds to the next look; `retry_wait`: to the next launch."""
    end = _end_state(seen) if seen.ended else None
    return Outcome(
        id=record.id,
        launch=record.launch,
        arn=record.arn,
        version=seen.version,
        last_status=seen.last_status,
        wait=retry_wait if end else wait,
        started_at=seen.started_at or 0.0,
        end=end,
        retry=end is not None and may_relaunch(record.relaunch, seen),
        by_user=seen.end == "stopped",
        max_attempts=max_attempts,
        finished_at=seen.stopped_at or 0.0,
        exit_code=seen.exit_code,
        stop_code=seen.stop_code or "",
        reason=seen.reason,
    )


def may_relaunch(policy: str, seen: Observation) -> bool:
    """Relaunch only what is safe (invariant 4). What somebody stopped by hand is never started again."""
    if seen.end == "start_failure":
        return True
    if seen.end == "interrupted":
        return policy in ("interrupted", "any_failure")
    return seen.end == "ran" and _end_state(seen) is State.FAILED and policy == "any_failure"


def lost_outcome(record: Record, reason: str) -> Outcome:
    """ECS has not known the task for longer than it keeps any: UNKNOWN, reported and never relaunched."""
    return Outcome(
        id=record.id,
        launch=record.launch,
        arn=record.arn,
        version=record.version + 1 if record.version else 0,
        last_status=record.last_status,
        wait=0.0,
        end=State.UNKNOWN,
        reason=reason,
    )


def must_stop(record: Record, seen: Observation, now: float) -> str:
    """Why this task has to be stopped now: a stop that is marked, an expiry, the time limit; "" if it may go on."""
    if seen.ended or seen.desired_status == "STOPPED":
        return ""
    if record.stop_by:
        return record.stop_by
    started = seen.started_at or record.started_at
    if record.time_limit and started and now >= started + record.time_limit:
        return STOPPED_BY_TIME_LIMIT
    if record.expires_at and now >= record.expires_at and not started and seen.last_status != "RUNNING":
        return STOPPED_BY_EXPIRY
    return ""


def _end_state(seen: Observation) -> State:
    return State(seen.state.value.upper())
