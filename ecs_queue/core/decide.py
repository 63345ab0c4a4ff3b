"""The launcher's decisions, pure: what to write after a RunTask call, what a look at a task means, what to do next.

Given the same record, answer, clock and random source, the decision is the same: nothing here does I/O. The journal
keeps inputs and decision of each, and `ecs_queue.journal.offline` calls the same functions with them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from ecs_queue.core.answers import Kind, ListAnswer, RunAnswer, TroubleKind
from ecs_queue.core.flow import Flow, next_look
from ecs_queue.core.lifecycle import PROOF_ENDS_AFTER
from ecs_queue.core.protocol import Outcome, RefusalKind, Word
from ecs_queue.core.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record
from ecs_queue.core.retry import Backoff, Chance
from ecs_queue.core.states import State
from ecs_queue.core.verdict import Observation, observe, poll_interval

#: Seconds between looks for a task of a launch in doubt, when the look itself has failed.
_LOOK_AGAIN = 30.0
#: Of ListTasks: what does not pass by itself.
FOR_GOOD = frozenset({TroubleKind.GONE, TroubleKind.DENIED, TroubleKind.INVALID})
#: Seconds until the next look after a StopTask.
AFTER_STOP = 1.0


class Write(StrEnum):
    """The ledger operation that follows a RunTask call, or a look for what one has started."""

    LAUNCHED = "launched"
    NO_EFFECT = "no_effect"
    UNSURE = "unsure"
    REFUSED = "refused"
    NONE = "none"
    ASK = "ask"
    """The token was used with other arguments: describe the tasks it names before anything is written."""


class AfterCall(msgspec.Struct, frozen=True, kw_only=True):
    """What to write after a call. `arn`: of LAUNCHED. `wait`: seconds. `answered`: "1" when ECS itself ended the
    call."""

    write: Write
    arn: str = ""
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


def after_call(answer: RunAnswer, record: Record, backoff: Backoff, rng: Chance) -> AfterCall:
    """One decision for each kind of answer (DESIGN.md, invariants 2 and 3)."""
    if answer.kind is Kind.STARTED:
        return AfterCall(write=Write.LAUNCHED, arn=answer.arn or "")
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


def after_conflict(
    asked: AfterCall, wanted: str, conflicting: Sequence[str], shown: Sequence[Mapping[str, Any]]
) -> AfterCall:
    """ConflictException, and the tasks that ECS shows for the ARNs it names: adopted only when `startedBy` is ours."""
    for task in shown:
        if task.get("startedBy") == wanted:
            return AfterCall(write=Write.LAUNCHED, arn=str(task["taskArn"]))
    if len(shown) < max(1, len(conflicting)):  # one that is not shown may be ours
        return AfterCall(write=Write.UNSURE, reason=asked.reason, wait=asked.wait, answered="1")
    return msgspec.structs.replace(asked, write=Write.REFUSED, refusal=RefusalKind.PERMANENT)


def after_list(listed: ListAnswer, age: float, again: float) -> AfterCall:
    """LOOK: what ListTasks shows exists; what it does not show is proof only after H. `again`: seconds to the next.

    `age`: seconds since the launch was first called. Trouble that will not pass by itself proves nothing (where the
    cluster does not exist, the credentials may be another account's), but once nobody could prove anything any more, it
    is as good as an empty list: UNKNOWN, and `reason` says why nobody could look.
    """
    if listed.arns:
        return AfterCall(write=Write.LAUNCHED, arn=listed.arns[0])
    trouble = listed.trouble
    if trouble is not None and not (trouble.kind in FOR_GOOD and age > PROOF_ENDS_AFTER):
        return AfterCall(write=Write.UNSURE, reason=trouble.reason, wait=_LOOK_AGAIN)
    return AfterCall(write=Write.NONE, reason=trouble.reason if trouble is not None else "", wait=again)


class Step(StrEnum):
    """What the launcher does after a word of the ledger."""

    CALL = "call"
    LOOK = "look"
    STOP = "stop"
    """Stop the task: it belongs to no present launch."""
    END = "end"
    """Publish the result."""
    RETRY = "retry"
    """The task is over, and the request waits for its next launch."""
    BURY = "bury"
    """The message goes to the dead letters."""
    TOO_LATE = "too_late"
    """So does this one, and its owner is told."""
    LOST = "lost"
    """Another worker has taken the launch over."""
    LEAVE = "leave"
    """Nothing more."""


_STEPS = {
    ("put", Word.CONFLICT): Step.BURY,
    ("put", Word.TOO_LATE): Step.TOO_LATE,
    ("put", Word.ENDED): Step.END,
    ("claim", Word.CALL): Step.CALL,
    ("claim", Word.ENDED): Step.END,
    ("reclaim", Word.CALL): Step.CALL,
    ("reclaim", Word.LOOK): Step.LOOK,
    ("reclaim", Word.ENDED): Step.END,
    ("launched", Word.STOP_IT): Step.STOP,
    ("write", Word.ENDED): Step.END,
    ("write", Word.LOST): Step.LOST,
    ("outcome", Word.ENDED): Step.END,
    ("outcome", Word.RETRY): Step.RETRY,
}


def next_step(operation: str, word: Word) -> Step:
    """What follows the ledger's answer to put, claim, reclaim, launched, outcome, or to what is written after a call
    or a look that started nothing ("write")."""
    return _STEPS.get((operation, word), Step.LEAVE)


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a launched task. `task`: as ECS shows it; `container` decides; `now`: the ledger's clock;
    `in_flight` tasks share `rate` DescribeTasks calls a second; `flow`: of its events, while they are trusted."""

    record: Record
    task: Mapping[str, Any]
    container: str | None
    max_attempts: int
    now: float
    in_flight: int
    rate: float
    backoff: Backoff
    flow: Flow | None = None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a look means. `stop`: why the task is to be stopped, or ""; `wait`: seconds until the next look; `outcome`:
    what the ledger is told, None when it knows already."""

    seen: Observation
    stop: str
    news: bool
    wait: float
    outcome: Outcome | None


def judge(look: Look, rng: Chance) -> Judgement:
    """What a look at a task means, and what follows."""
    record = look.record
    seen = observe(look.task, look.container)
    why = must_stop(record, seen, look.now)
    wait = AFTER_STOP if why else _next_look(look, seen)
    news = is_news(record, seen)
    outcome = None
    if news:
        retry_wait = look.backoff.delay(record.attempt, rng)
        outcome = outcome_of(record, seen, look.max_attempts, wait, retry_wait)
    return Judgement(seen=seen, stop=why, news=news, wait=wait, outcome=outcome)


def _next_look(look: Look, seen: Observation) -> float:
    if look.flow is not None:
        return next_look(look.record, seen, look.flow, look.in_flight, look.now)
    return poll_interval(look.now - look.record.launched_at, look.in_flight, look.rate)


def after_missing(record: Record, gone_for: float, grace: float, why: str = "") -> Outcome | float:
    """MISSING: right after RunTask it means "not visible yet"; only after the grace time is the task lost. Seconds
    until the next look, or the end. `gone_for`: seconds for which ECS has not shown it; `why`: what more it said."""
    if gone_for < grace:
        return min(10.0, max(AFTER_STOP, grace / 10))
    reason = f"ECS has not known {record.arn} for {gone_for:.0f} s and nobody saw it end: look at its logs"
    return lost_outcome(record, f"{reason} ({why})" if why else reason)


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
