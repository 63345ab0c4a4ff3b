"""The worker's decisions as pure functions: what to write after a RunTask call or a list, and what a poll means.

The same record, ECS result, clock and random source give the same decision. The journal records the inputs and the
decision of each; `ecs_queue.replay.decisions` calls the same functions with them again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any

import msgspec

from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.protocol.aws_causes import Cause, Consequence, what_follows
from ecs_queue.protocol.ecs_results import EcsErrorKind, ListTasksResult, RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.event_health import EventHealth
from ecs_queue.protocol.next_actions import NextAction as NextAction
from ecs_queue.protocol.next_actions import next_action as next_action
from ecs_queue.protocol.observation import Observation, observe
from ecs_queue.protocol.operations import RefusalKind, TaskUpdate
from ecs_queue.protocol.polling import poll_interval, trusted_poll_wait
from ecs_queue.protocol.record import STOPPED_BY_EXPIRY, STOPPED_BY_START_TIMEOUT, STOPPED_BY_TIME_LIMIT, Record
from ecs_queue.protocol.record_moves import is_start_overdue
from ecs_queue.protocol.retry import Backoff, RandomSource
from ecs_queue.protocol.retry_rules import FailedAttempt, Ruling, failed_attempt, rule_on
from ecs_queue.protocol.settings import ABSENCE_UNPROVABLE_AFTER
from ecs_queue.protocol.states import State
from ecs_queue.protocol.task_order import compare_observations

#: The most seconds until the tasks of an ambiguous launch are listed again.
LIST_RETRY_SECONDS = 30.0
#: How often the delay doubles for calls that are not sent: to 32 s by default.
NOT_SENT_DOUBLINGS = 4
#: The errors of ListTasks that do not pass by themselves.
LASTING_READ_ERRORS = frozenset({EcsErrorKind.CLUSTER_NOT_FOUND, EcsErrorKind.DENIED, EcsErrorKind.INVALID})
#: Seconds until the next poll after a StopTask call.
POLL_AFTER_STOP_SECONDS = 1.0


class LedgerWrite(StrEnum):
    """The ledger operation that follows a RunTask call, or a list of the tasks that one started."""

    LAUNCHED = "launched"
    NO_EFFECT = "no_effect"
    CALL_AMBIGUOUS = "call_ambiguous"
    REFUSED = "refused"
    TASK_ABSENT = "task_absent"
    DESCRIBE_CONFLICT = "describe_conflict"
    """The client token was used with other arguments: describe the conflicting tasks before anything is written."""


class CallDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What to write after a call.

    Attributes:
        arn: The task, if `write` is LAUNCHED.
        wait: Seconds until the record is due again.
        call_completed: Whether ECS itself ended the call with a 5xx, so that it cannot take effect later.
        refusal_kind: What a refusal consumes, if `write` is REFUSED.
        opens_circuit: Whether the profile is unusable, so that its queues stop launching.
    """

    write: LedgerWrite
    arn: str = ""
    reason: str = ""
    wait: float = 0.0
    call_completed: bool = False
    refusal_kind: RefusalKind = RefusalKind.PERMANENT
    opens_circuit: bool = False


#: For how long after its submission, and for at least how many launches, a request waits for a role to become usable.
ROLE_GRACE_SECONDS, ROLE_GRACE_LAUNCHES = 300.0, 5

#: The kinds of results that are refusals, under their common names.
_REFUSAL_KINDS = {kind.value: kind for kind in RefusalKind}


def decide_call(
    result: RunTaskResult, record: Record, backoff: Backoff, rng: RandomSource, chosen: Collection[str] = ()
) -> CallDecision:
    """Return what to write after a RunTask call: one decision for each kind of result (docs/protocol.md).

    `chosen` is what the request itself chose: "tags", "capacity", and its roles.
    """
    kind = _find_result_kind(result, record, chosen)
    if kind is RunTaskResultKind.STARTED:
        return CallDecision(write=LedgerWrite.LAUNCHED, arn=result.arn or "")
    wait = backoff.delay(_count_doublings(kind, record.calls), rng)
    decide = partial(CallDecision, reason=result.reason or result.error_code, wait=wait)
    if kind is RunTaskResultKind.CONFLICT:
        return decide(write=LedgerWrite.DESCRIBE_CONFLICT)
    if kind.value in _REFUSAL_KINDS:
        return decide(write=LedgerWrite.REFUSED, refusal_kind=_REFUSAL_KINDS[kind.value])
    if kind is RunTaskResultKind.AMBIGUOUS:
        return decide(write=LedgerWrite.CALL_AMBIGUOUS)
    if kind is RunTaskResultKind.ANSWERED_5XX:
        return decide(write=LedgerWrite.CALL_AMBIGUOUS, call_completed=True)
    if kind is RunTaskResultKind.THROTTLED:
        return decide(write=LedgerWrite.NO_EFFECT)
    opens_circuit = kind is RunTaskResultKind.UNUSABLE_PROFILE
    return decide(write=LedgerWrite.REFUSED, refusal_kind=RefusalKind.GIVEN_BACK, opens_circuit=opens_circuit)


def _count_doublings(kind: RunTaskResultKind, calls: int) -> int:
    """How often the wait has doubled."""
    if kind is RunTaskResultKind.UNUSABLE_PROFILE:  # the open circuit holds this worker back; others may launch it
        return 1
    # A call that is not sent costs AWS nothing; the next one comes soon after the endpoint was mended.
    return min(calls, NOT_SENT_DOUBLINGS) if kind is RunTaskResultKind.NEVER_SENT else calls


def _find_result_kind(result: RunTaskResult, record: Record, chosen: Collection[str]) -> RunTaskResultKind:
    """The kind of the result, for this very request."""
    kind = result.kind
    if kind is RunTaskResultKind.ROLE_NOT_USABLE:
        may_wait = may_role_become_usable(record, record.last_claim_at)
        return RunTaskResultKind.CAPACITY if may_wait else RunTaskResultKind.PERMANENT
    is_own = result.cause is not None and what_follows(result.cause, _blamed(result.reason, chosen)) is Consequence.FAIL
    return RunTaskResultKind.PERMANENT if kind is RunTaskResultKind.UNUSABLE_PROFILE and is_own else kind


def _blamed(reason: str, chosen: Collection[str]) -> set[str]:
    """Return which choices of the request AWS's words may be about, for `whose_trouble`; a role if they name it."""
    blamed = {"tags", "capacity"} & set(chosen)
    roles = [choice for choice in chosen if choice not in blamed]
    if any(role in reason for role in roles) or (roles and ":role/" not in reason):
        blamed.add("role")
    return blamed


def may_role_become_usable(record: Record, now: float) -> bool:
    """Return whether a role that ECS cannot assume may only be too new: IAM gets some minutes, and some launches."""
    return now - record.created_at < ROLE_GRACE_SECONDS or record.launch - record.attempt < ROLE_GRACE_LAUNCHES


def decide_conflict(
    call_decision: CallDecision, started_by: str, conflicting_arns: Sequence[str], tasks: Sequence[Mapping[str, Any]]
) -> CallDecision:
    """Return what to write after a ConflictException: the task is adopted only if its `startedBy` is ours."""
    for task in tasks:
        if task.get("startedBy") == started_by:
            return CallDecision(write=LedgerWrite.LAUNCHED, arn=str(task["taskArn"]))
    if len(tasks) < max(1, len(conflicting_arns)):  # a task that ECS does not show may be ours
        return CallDecision(
            write=LedgerWrite.CALL_AMBIGUOUS, reason=call_decision.reason, wait=call_decision.wait, call_completed=True
        )
    return msgspec.structs.replace(call_decision, write=LedgerWrite.REFUSED, refusal_kind=RefusalKind.PERMANENT)


def decide_list(result: ListTasksResult, age: float, retry_after: float) -> CallDecision:
    """Return what to write after ListTasks.

    A listed task exists. An empty list is proof only from `absence_provable_at` on. A lasting error proves nothing
    either (where the cluster does not exist, the credentials may be another account's). But once absence is unprovable
    anyway, it counts as an empty list: the record ends UNKNOWN, with the error as its reason.

    Args:
        result: The result of ListTasks.
        age: Seconds since RunTask was first called for this launch.
        retry_after: Seconds until the next list.
    """
    if result.arns:
        return CallDecision(write=LedgerWrite.LAUNCHED, arn=result.arns[0])
    error = result.error
    if error is None:
        return CallDecision(write=LedgerWrite.TASK_ABSENT, wait=retry_after)
    if error.kind in LASTING_READ_ERRORS and age > ABSENCE_UNPROVABLE_AFTER:
        return CallDecision(write=LedgerWrite.TASK_ABSENT, reason=error.reason, wait=retry_after)
    return CallDecision(write=LedgerWrite.CALL_AMBIGUOUS, reason=error.reason, wait=retry_after)


#: The consequences that use no attempt when a task never started. RELAUNCH_POLICY: its host was lost before a start.
_WAITING = frozenset({Consequence.WAIT, Consequence.WAIT_THEN_FAIL, Consequence.SLOW_DOWN, Consequence.RELAUNCH_POLICY})


class PollInput(PayloadRepr, msgspec.Struct, frozen=True, kw_only=True):
    """One poll of a launched task.

    Attributes:
        task: The task as ECS shows it.
        container_name: The container that decides how the task ended.
        now: The ledger's clock.
        in_flight: The number of tasks that share `describe_tasks_rate` calls a second.
        event_health: The health of the task's event source, while its events are trusted; else None.
    """

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
    """What a poll means.

    Attributes:
        stop_cause: Why the task is to be stopped; "" if it may go on.
        wait: Seconds until the next poll.
        update: The update for the ledger; None if the record holds these facts already.
        retry_rule: The number of the retry rule, from 1 on, that decided about an attempt that failed; 0: none did.
    """

    observation: Observation
    stop_cause: str
    is_new: bool
    wait: float
    update: TaskUpdate | None
    retry_rule: int = 0


def decide_poll(poll_input: PollInput, rng: RandomSource) -> PollDecision:
    """Return what a poll of a task means, and what follows."""
    record = poll_input.record
    observation = observe(poll_input.task, poll_input.container_name)
    stop_cause = find_stop_cause(record, observation, poll_input.now)
    wait = POLL_AFTER_STOP_SECONDS if stop_cause else _next_poll_wait(poll_input, observation)
    is_new = is_new_observation(record, observation)
    update = None
    ruling = _rule_on_end(record, observation)
    if is_new:
        # Every earlier launch that used no attempt waited for capacity.
        tries = record.launch - record.attempt + 1 if waits_for_capacity(observation) else record.attempt
        relaunch_wait = poll_input.backoff.delay(tries, rng)
        if ruling.delay is not None:
            relaunch_wait = max(ruling.delay, poll_input.backoff.base)
        update = build_task_update(
            record, observation, poll_input.max_attempts, wait, relaunch_wait, now=poll_input.now
        )
    return PollDecision(
        observation=observation, stop_cause=stop_cause, is_new=is_new, wait=wait, update=update, retry_rule=ruling.rule
    )


def _next_poll_wait(poll_input: PollInput, observation: Observation) -> float:
    record, health, now = poll_input.record, poll_input.event_health, poll_input.now
    if health is not None:
        return trusted_poll_wait(record, observation, health, poll_input.in_flight, now)
    return poll_interval(now - record.launched_at, poll_input.in_flight, poll_input.describe_tasks_rate)


def decide_missing(record: Record, missing_for: float, grace: float, ecs_reason: str = "") -> TaskUpdate | float:
    """Return what follows when ECS does not show a task: right after RunTask the task may not be visible yet.

    Args:
        record: The LAUNCHED record of the task.
        missing_for: Seconds for which ECS has not shown the task.
        grace: Seconds after which the task is lost.
        ecs_reason: The reason that ECS gave, if any.

    Returns:
        Seconds until the next poll, or the update that ends the request as UNKNOWN.
    """
    if missing_for < grace:
        return min(10.0, max(POLL_AFTER_STOP_SECONDS, grace / 10))
    reason = f"ECS has not known {record.arn} for {missing_for:.0f} s, and its end was not observed: look at its logs"
    return build_lost_update(record, f"{reason} ({ecs_reason})" if ecs_reason else reason)


def is_new_observation(record: Record, observation: Observation) -> bool:
    """Return whether the record lacks these facts: a later status or version, or the time of the start."""
    order = compare_observations(observation.version, observation.last_status, record.version, record.last_status)
    return order > 0 or (order == 0 and bool(observation.started_at) and not record.started_at and not record.run)


def build_task_update(
    record: Record, observation: Observation, max_attempts: int, wait: float, relaunch_wait: float, *, now: float
) -> TaskUpdate:
    """Return the update for the ledger; `wait` seconds until the next poll, `relaunch_wait` until the next launch."""
    end_state = _terminal_state(observation) if observation.has_ended else None
    is_refused = observation.cause is Cause.ROLE_NOT_USABLE and not may_role_become_usable(record, now)
    ruling = _rule_on_end(record, observation)
    return TaskUpdate(
        id=record.id,
        launch=record.launch,
        arn=record.arn,
        version=observation.version,
        last_status=observation.last_status,
        wait=relaunch_wait if end_state else wait,
        started_at=observation.started_at or 0.0,
        end_state=State.FAILED if is_refused else end_state,
        may_relaunch=end_state is not None and not is_refused and ruling.retries,
        stopped_by_user=observation.stop_code == "UserInitiated",
        max_attempts=max_attempts,
        finished_at=observation.stopped_at or 0.0,
        exit_code=observation.exit_code,
        stop_code=observation.stop_code or "",
        reason=observation.reason,
        counts_attempt=ruling.counts_attempt,
    )


def waits_for_capacity(observation: Observation) -> bool:
    """Return whether the task never started for a cause that waiting mends, so that it uses no attempt."""
    if observation.end_kind != "start_failure" or observation.cause is None or observation.started_at:
        return False
    return what_follows(observation.cause) in _WAITING


def may_relaunch(policy: str, observation: Observation) -> bool:
    """Return whether the relaunch policy allows another attempt. A task that a user stopped is never relaunched."""
    attempt = failed_attempt(observation)
    return attempt is not None and rule_on("", policy, attempt).retries


def _rule_on_end(record: Record, observation: Observation) -> Ruling:
    """What follows the end of a task: no retry before it, and after a success or a stop.

    A lack of capacity uses no attempt, so no rule is asked.
    """
    if waits_for_capacity(observation):
        return Ruling(retries=may_relaunch(record.relaunch, observation), counts_attempt=False)
    attempt = failed_attempt(observation)
    if record.run and observation.end_kind == "ran":
        # A runner that did not report an end has failed, whatever its exit code.
        attempt = FailedAttempt(end="exited", stop_code=observation.stop_code or "", reasons=observation.reasons)
    if attempt is None:
        return Ruling(retries=False)
    if not record.retry_rules and not record.run:
        return Ruling(retries=may_relaunch(record.relaunch, observation))
    return rule_on(record.retry_rules, record.relaunch, attempt)


def build_lost_update(record: Record, reason: str) -> TaskUpdate:
    """Return the update for a task that ECS has not known for longer than it keeps any: UNKNOWN, never relaunched."""
    return TaskUpdate(
        id=record.id,
        launch=record.launch,
        arn=record.arn,
        version=record.version,
        last_status=record.last_status,
        wait=0.0,
        end_state=State.UNKNOWN,
        reason=reason,
    )


def find_stop_cause(record: Record, observation: Observation, now: float) -> str:
    """Return why the task must be stopped now: the requested stop, a deadline or a limit; "" if it may go on."""
    if observation.has_ended or observation.desired_status == "STOPPED" or record.run:
        return ""  # what a runner's task shows is not about one request: its run decides
    if record.stop_requested_by:
        return record.stop_requested_by
    started = observation.started_at or record.started_at
    if record.time_limit and started and now >= started + record.time_limit:
        return STOPPED_BY_TIME_LIMIT
    if started or observation.last_status == "RUNNING":
        return ""
    if record.expires_at and now >= record.expires_at:
        return STOPPED_BY_EXPIRY
    return STOPPED_BY_START_TIMEOUT if is_start_overdue(record, now) else ""


def _terminal_state(observation: Observation) -> State:
    return State(observation.state.value.upper())
