"""The launcher's decisions, pure: what to write after a RunTask call, what a look at a task means, what to do next.

Given the same record, answer, clock and random source, the decision is the same: nothing here does I/O. The journal
keeps inputs and decision of each, and `ecs_queue.replay.decisions` calls the same functions with them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from ecs_queue.protocol.ecs_results import ListTasksResult, ReadErrorKind, RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.event_health import EventHealth, trusted_poll_wait
from ecs_queue.protocol.observation import Observation, observe, poll_interval
from ecs_queue.protocol.operations import RefusalKind, ResultCode, TaskUpdate
from ecs_queue.protocol.record import STOPPED_BY_EXPIRY, STOPPED_BY_TIME_LIMIT, Record
from ecs_queue.protocol.retry import Backoff, RandomSource
from ecs_queue.protocol.settings import ABSENCE_UNPROVABLE_AFTER
from ecs_queue.protocol.states import State

#: Seconds between looks for a task of a launch in doubt, when the look itself has failed.
_LIST_RETRY_SECONDS = 30.0
#: Of ListTasks: what does not pass by itself.
LASTING_READ_ERRORS = frozenset({ReadErrorKind.CLUSTER_NOT_FOUND, ReadErrorKind.DENIED, ReadErrorKind.INVALID})
#: Seconds until the next look after a StopTask.
POLL_AFTER_STOP_SECONDS = 1.0


class LedgerWrite(StrEnum):
    """The ledger operation that follows a RunTask call, or a look for what one has started."""

    LAUNCHED = "launched"
    NO_EFFECT = "no_effect"
    CALL_AMBIGUOUS = "call_ambiguous"
    REFUSED = "refused"
    TASK_ABSENT = "task_absent"
    DESCRIBE_CONFLICT = "describe_conflict"
    """The token was used with other arguments: describe the tasks it names before anything is written."""


class CallDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What to write after a call. `arn`: of LAUNCHED. `wait`: seconds. `answered`: "1" when ECS itself ended the
    call."""

    write: LedgerWrite
    arn: str = ""
    reason: str = ""
    wait: float = 0.0
    call_completed: str = ""
    refusal_kind: RefusalKind = RefusalKind.PERMANENT
    opens_circuit: bool = False


_REFUSAL_KINDS = {
    RunTaskResultKind.CAPACITY: RefusalKind.CAPACITY,
    RunTaskResultKind.START_FAILURE: RefusalKind.START_FAILURE,
    RunTaskResultKind.PERMANENT: RefusalKind.PERMANENT,
}


def decide_call(result: RunTaskResult, record: Record, backoff: Backoff, rng: RandomSource) -> CallDecision:
    """One decision for each kind of answer (DESIGN.md, invariants 2 and 3)."""
    if result.kind is RunTaskResultKind.STARTED:
        return CallDecision(write=LedgerWrite.LAUNCHED, arn=result.arn or "")
    wait = backoff.delay(record.calls, rng)
    reason = result.reason or result.error_code
    if result.kind is RunTaskResultKind.CONFLICT:
        return CallDecision(write=LedgerWrite.DESCRIBE_CONFLICT, reason=reason, wait=wait)
    if result.kind in _REFUSAL_KINDS:
        return CallDecision(
            write=LedgerWrite.REFUSED, reason=reason, wait=wait, refusal_kind=_REFUSAL_KINDS[result.kind]
        )
    if result.kind is RunTaskResultKind.AMBIGUOUS:
        return CallDecision(write=LedgerWrite.CALL_AMBIGUOUS, reason=reason, wait=wait)
    if result.kind is RunTaskResultKind.ANSWERED_5XX:
        return CallDecision(write=LedgerWrite.CALL_AMBIGUOUS, reason=reason, wait=wait, call_completed="1")
    return CallDecision(
        write=LedgerWrite.NO_EFFECT,
        reason=reason,
        wait=wait,
        opens_circuit=result.kind is RunTaskResultKind.UNUSABLE_PROFILE,
    )


def decide_conflict(
    call_decision: CallDecision, started_by: str, conflicting_arns: Sequence[str], tasks: Sequence[Mapping[str, Any]]
) -> CallDecision:
    """ConflictException, and the tasks that ECS shows for the ARNs it names: adopted only when `startedBy` is ours."""
    for task in tasks:
        if task.get("startedBy") == started_by:
            return CallDecision(write=LedgerWrite.LAUNCHED, arn=str(task["taskArn"]))
    if len(tasks) < max(1, len(conflicting_arns)):  # one that is not shown may be ours
        return CallDecision(
            write=LedgerWrite.CALL_AMBIGUOUS, reason=call_decision.reason, wait=call_decision.wait, call_completed="1"
        )
    return msgspec.structs.replace(call_decision, write=LedgerWrite.REFUSED, refusal_kind=RefusalKind.PERMANENT)


def decide_list(result: ListTasksResult, age: float, retry_after: float) -> CallDecision:
    """LOOK: what ListTasks shows exists; what it does not show is proof only after H. `again`: seconds to the next.

    `age`: seconds since the launch was first called. Trouble that will not pass by itself proves nothing (where the
    cluster does not exist, the credentials may be another account's), but once nobody could prove anything any more, it
    is as good as an empty list: UNKNOWN, and `reason` says why nobody could look.
    """
    if result.arns:
        return CallDecision(write=LedgerWrite.LAUNCHED, arn=result.arns[0])
    trouble = result.error
    if trouble is not None and not (trouble.kind in LASTING_READ_ERRORS and age > ABSENCE_UNPROVABLE_AFTER):
        return CallDecision(write=LedgerWrite.CALL_AMBIGUOUS, reason=trouble.reason, wait=_LIST_RETRY_SECONDS)
    return CallDecision(
        write=LedgerWrite.TASK_ABSENT, reason=trouble.reason if trouble is not None else "", wait=retry_after
    )


class NextAction(StrEnum):
    """What the launcher does after a word of the ledger."""

    RUN_TASK = "run_task"
    LIST_TASKS = "list_tasks"
    STOP_TASK = "stop_task"
    """Stop the task: it belongs to no present launch."""
    PUBLISH_RESULT = "publish_result"
    """Publish the result."""
    AWAIT_RELAUNCH = "await_relaunch"
    """The task is over, and the request waits for its next launch."""
    ADD_DEAD_LETTER = "add_dead_letter"
    """The message goes to the dead letters."""
    REJECT_TOO_LATE = "reject_too_late"
    """So does this one, and its owner is told."""
    REPORT_CLAIM_LOST = "report_claim_lost"
    """Another worker has taken the launch over."""
    NOTHING = "nothing"
    """Nothing more."""


_NEXT_ACTIONS = {
    ("put", ResultCode.CONFLICT): NextAction.ADD_DEAD_LETTER,
    ("put", ResultCode.TOO_LATE): NextAction.REJECT_TOO_LATE,
    ("put", ResultCode.ENDED): NextAction.PUBLISH_RESULT,
    ("claim", ResultCode.RUN_TASK): NextAction.RUN_TASK,
    ("claim", ResultCode.ENDED): NextAction.PUBLISH_RESULT,
    ("reclaim", ResultCode.RUN_TASK): NextAction.RUN_TASK,
    ("reclaim", ResultCode.LIST_TASKS): NextAction.LIST_TASKS,
    ("reclaim", ResultCode.ENDED): NextAction.PUBLISH_RESULT,
    ("launched", ResultCode.UNWANTED): NextAction.STOP_TASK,
    ("write", ResultCode.ENDED): NextAction.PUBLISH_RESULT,
    ("write", ResultCode.CLAIM_LOST): NextAction.REPORT_CLAIM_LOST,
    ("update_task", ResultCode.ENDED): NextAction.PUBLISH_RESULT,
    ("update_task", ResultCode.REQUEUED): NextAction.AWAIT_RELAUNCH,
}


def next_action(operation: str, code: ResultCode) -> NextAction:
    """What follows the ledger's answer to put, claim, reclaim, launched, outcome, or to what is written after a call
    or a look that started nothing ("write")."""
    return _NEXT_ACTIONS.get((operation, code), NextAction.NOTHING)


class PollInput(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a launched task. `task`: as ECS shows it; `container` decides; `now`: the ledger's clock;
    `in_flight` tasks share `rate` DescribeTasks calls a second; `flow`: of its events, while they are trusted."""

    record: Record
    task: Mapping[str, Any]
    container_name: str | None
    max_attempts: int
    now: float
    in_flight: int
    describe_tasks_rate: float
    backoff: Backoff
    event_health: EventHealth | None = None


class PollDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What a look means. `stop`: why the task is to be stopped, or ""; `wait`: seconds until the next look; `outcome`:
    what the ledger is told, None when it knows already."""

    observation: Observation
    stop_cause: str
    is_new: bool
    wait: float
    update: TaskUpdate | None


def decide_poll(poll_input: PollInput, rng: RandomSource) -> PollDecision:
    """What a look at a task means, and what follows."""
    record = poll_input.record
    seen = observe(poll_input.task, poll_input.container_name)
    why = find_stop_cause(record, seen, poll_input.now)
    wait = POLL_AFTER_STOP_SECONDS if why else _next_poll_wait(poll_input, seen)
    news = is_new_observation(record, seen)
    outcome = None
    if news:
        retry_wait = poll_input.backoff.delay(record.attempt, rng)
        outcome = build_task_update(record, seen, poll_input.max_attempts, wait, retry_wait)
    return PollDecision(observation=seen, stop_cause=why, is_new=news, wait=wait, update=outcome)


def _next_poll_wait(poll_input: PollInput, observation: Observation) -> float:
    if poll_input.event_health is not None:
        return trusted_poll_wait(
            poll_input.record, observation, poll_input.event_health, poll_input.in_flight, poll_input.now
        )
    return poll_interval(
        poll_input.now - poll_input.record.launched_at, poll_input.in_flight, poll_input.describe_tasks_rate
    )


def decide_missing(record: Record, missing_for: float, grace: float, ecs_reason: str = "") -> TaskUpdate | float:
    """MISSING: right after RunTask it means "not visible yet"; only after the grace time is the task lost. Seconds
    until the next look, or the end. `gone_for`: seconds for which ECS has not shown it; `why`: what more it said."""
    if missing_for < grace:
        return min(10.0, max(POLL_AFTER_STOP_SECONDS, grace / 10))
    reason = f"ECS has not known {record.arn} for {missing_for:.0f} s and nobody saw it end: look at its logs"
    return build_lost_update(record, f"{reason} ({ecs_reason})" if ecs_reason else reason)


def is_new_observation(record: Record, observation: Observation) -> bool:
    """Whether the ledger does not know this yet."""
    if observation.version and record.version:
        return observation.version > record.version
    return (
        observation.has_ended
        or observation.last_status != record.last_status
        or bool(observation.started_at) != bool(record.started_at)
    )


def build_task_update(
    record: Record, observation: Observation, max_attempts: int, wait: float, retry_wait: float
) -> TaskUpdate:
    """What the ledger is told of a look. `wait`: seconds to the next look; `retry_wait`: to the next launch."""
    end = _terminal_state(observation) if observation.has_ended else None
    return TaskUpdate(
        id=record.id,
        launch=record.launch,
        arn=record.arn,
        version=observation.version,
        last_status=observation.last_status,
        wait=retry_wait if end else wait,
        started_at=observation.started_at or 0.0,
        end_state=end,
        may_relaunch=end is not None and may_relaunch(record.relaunch, observation),
        stopped_by_user=observation.end_kind == "stopped",
        max_attempts=max_attempts,
        finished_at=observation.stopped_at or 0.0,
        exit_code=observation.exit_code,
        stop_code=observation.stop_code or "",
        reason=observation.reason,
    )


def may_relaunch(policy: str, observation: Observation) -> bool:
    """Relaunch only what is safe (invariant 4). What somebody stopped by hand is never started again."""
    if observation.end_kind == "start_failure":
        return True
    if observation.end_kind == "interrupted":
        return policy in ("interrupted", "any_failure")
    return observation.end_kind == "ran" and _terminal_state(observation) is State.FAILED and policy == "any_failure"


def build_lost_update(record: Record, reason: str) -> TaskUpdate:
    """ECS has not known the task for longer than it keeps any: UNKNOWN, reported and never relaunched."""
    return TaskUpdate(
        id=record.id,
        launch=record.launch,
        arn=record.arn,
        version=record.version + 1 if record.version else 0,
        last_status=record.last_status,
        wait=0.0,
        end_state=State.UNKNOWN,
        reason=reason,
    )


def find_stop_cause(record: Record, observation: Observation, now: float) -> str:
    """Why this task has to be stopped now: a stop that is marked, an expiry, the time limit; "" if it may go on."""
    if observation.has_ended or observation.desired_status == "STOPPED":
        return ""
    if record.stop_requested_by:
        return record.stop_requested_by
    started = observation.started_at or record.started_at
    if record.time_limit and started and now >= started + record.time_limit:
        return STOPPED_BY_TIME_LIMIT
    if record.expires_at and now >= record.expires_at and not started and observation.last_status != "RUNNING":
        return STOPPED_BY_EXPIRY
    return ""


def _terminal_state(observation: Observation) -> State:
    return State(observation.state.value.upper())
