"""Makes the ECS call of a claimed record, RunTask or the search with ListTasks, and records what it proves.

Every step is written so that the process may die before or after it (docs/protocol.md).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import DESCRIBE_BATCH_SIZE, CallBudgetExceeded
from ecs_queue.errors import PermanentError
from ecs_queue.protocol.capacity_fallback import event_of_call
from ecs_queue.protocol.decisions import (
    LASTING_READ_ERRORS,
    LIST_RETRY_SECONDS,
    CallDecision,
    LedgerWrite,
    NextAction,
    decide_call,
    decide_conflict,
    decide_list,
)
from ecs_queue.protocol.ecs_results import EcsErrorKind, RunTaskResult, RunTaskResultKind
from ecs_queue.protocol.operations import RefusalKind, ResultCode, RunnerTask
from ecs_queue.protocol.record import Record, build_client_token
from ecs_queue.protocol.record_moves import queued_at
from ecs_queue.protocol.retry import RecordedDraw
from ecs_queue.protocol.state_machine.launch_reports import launched
from ecs_queue.protocol.states import State
from ecs_queue.runtask.launch_spec import LaunchSpec
from ecs_queue.worker.completion import Completion
from ecs_queue.worker.context import WorkerContext


class LaunchCalls:
    """The calls of launches. Thread-safe: each one works on one record, with the token of its call already taken."""

    def __init__(self, context: WorkerContext, completion: Completion) -> None:
        self._context = context
        self._completion = completion

    def run_task(self, record: Record, spec: LaunchSpec, target: Target, deadline: float) -> None:
        """Send RunTask, unless `deadline` of the worker's monotonic clock has passed, and record what it did."""
        context, ids = self._context, _ids(record)
        # The request may have chosen other capacity than its queue's.
        limiter = context.call_limiter(record.queue, spec.run_task)
        context.launch_limiter(record.queue).exchange_token(limiter, target)
        call = {"attempt": record.attempt, "launch_spec": record.args, "target": record.target}
        context.telemetry.emit("launch.called", **ids, **call)
        if record.variant > 1:
            variant = {"variant": record.variant, "reason": record.variant_reason}
            context.telemetry.emit("launch.on_variant", **ids, **variant)
        crash_point("launch.calling")
        result = context.gateway.run_task(
            target,
            spec.run_task,
            client_token=build_client_token(record.id, record.nonce, record.launch),
            started_by=context.started_by(record),
            deadline=deadline,
        )
        crash_point("launch.call_returned")
        if result.kind is RunTaskResultKind.THROTTLED:
            limiter.report_throttled(target)
        draw = RecordedDraw(context.rng)
        decision = decide_call(result, record, context.backoff, draw, spec.chosen)
        inputs = {"record": record, "result": result, "backoff": context.backoff, "chosen": spec.chosen}
        inputs["draw"] = draw.value
        context.telemetry.emit("decision.run_task", **ids, write=decision.write.value, **inputs, decision=decision)
        if decision.write is LedgerWrite.DESCRIBE_CONFLICT:
            decision = self._resolve_conflict(record, target, result, decision)
        if decision.write is LedgerWrite.LAUNCHED and decision.arn:
            self.record_launched(record, target, decision.arn)
        else:
            self._record_not_launched(record, spec, decision)
        context.capacity_fallback.report(record, event_of_call(result), result.reason)
        if decision.opens_circuit:
            context.circuit_breakers.open(record.queue, decision.reason, target.encode())
        elif _is_unreachable(result):
            context.circuit_breakers.report_unsent(record.queue, decision.reason, target.encode())
        elif decision.write in (LedgerWrite.LAUNCHED, LedgerWrite.REFUSED) and not _is_given_back(decision):
            context.circuit_breakers.close(record.queue, target.encode())

    def record_launched(self, record: Record, target: Target, arn: str) -> None:
        """Record the task of a launch; stop it when the record has had another decision since."""
        context = self._context
        wait = context.poll_schedule.first_poll_delay(record, arn)
        ledger_wait = context.held_tasks.ledger_wait(record, wait)
        until = context.monotonic() + ledger_wait
        result = context.ledger.launched(record.id, record.nonce, record.launch, arn, ledger_wait)
        crash_point("launch.launched")
        if result.code is ResultCode.OK and ledger_wait > wait:
            context.held_tasks.hold(_build_launched(record, arn, result.at), target.encode(), wait, until)
        if context.decide_next_action("launched", record.id, result.code) is NextAction.STOP_TASK:
            task = RunnerTask(build_client_token(record.id, record.nonce, record.launch), arn)
            if not context.ledger.may_stop([task])[0]:
                return  # a runner, which serves requests by now
            context.telemetry.emit("launch.unwanted", **_ids(record), arn=arn)
            context.stop_task_limiter.charge(target)
            crash_point("launch.unwanted")
            context.gateway.stop_task(target, arn, "ecs-queue: this launch is not wanted any more")
            return
        context.telemetry.emit(
            "launch.started", **_ids(record), arn=arn, queue=record.queue, queued_at=queued_at(record)
        )

    def _record_not_launched(self, record: Record, spec: LaunchSpec, decision: CallDecision) -> None:
        ledger, telemetry = self._context.ledger, self._context.telemetry
        reason, wait = decision.reason, decision.wait
        if decision.write is LedgerWrite.NO_EFFECT:
            telemetry.emit("launch.no_effect", **_ids(record), reason=reason)
            result = ledger.no_effect(record.id, record.claim, wait, reason)
            crash_point("launch.no_effect")
        elif decision.write is LedgerWrite.CALL_AMBIGUOUS:
            telemetry.emit("launch.ambiguous", **_ids(record), reason=reason)
            result = ledger.call_ambiguous(record.id, record.claim, wait, reason, decision.call_completed)
            crash_point("launch.ambiguous")
        else:
            kind = decision.refusal_kind
            if _is_given_back(decision):
                telemetry.emit("launch.no_effect", **_ids(record), reason=reason)
            else:
                telemetry.emit("launch.refused", **_ids(record), kind=kind.value, reason=reason)
            result = ledger.refused(record.id, record.claim, kind, wait, reason, spec.max_attempts)
            crash_point("launch.refused")
        self._completion.handle_write_result(record, result)

    def _resolve_conflict(
        self, record: Record, target: Target, result: RunTaskResult, call_decision: CallDecision
    ) -> CallDecision:
        """After a ConflictException: adopt the task that it names only if its startedBy is this launch's."""
        context = self._context
        context.read_limiter.charge(target)
        tasks = context.gateway.describe_tasks(target, result.conflicting_arns[:DESCRIBE_BATCH_SIZE]).tasks
        crash_point("launch.conflict_described")
        inputs: dict[str, Any] = {
            "call_decision": call_decision,
            "started_by": context.started_by(record),
            "conflicting_arns": result.conflicting_arns,
            "tasks": tasks,
        }
        decision = decide_conflict(**inputs)
        write = decision.write.value
        context.telemetry.emit("decision.conflict", **_ids(record), write=write, **inputs, decision=decision)
        return decision

    def find_task(self, record: Record, target: Target) -> None:
        """Search with ListTasks: what it shows exists; an empty list is proof only after H (docs/protocol.md)."""
        context = self._context
        family = ""
        with suppress(PermanentError):  # then it is not known
            family = context.verifier.decode_launch_spec(record).family
        listed = context.gateway.list_tasks(target, context.started_by(record), family)
        crash_point("launch.tasks_listed")
        if listed.calls > 1:  # the first one is paid for
            context.read_limiter.charge(target, listed.calls - 1)
        if listed.error is not None and listed.error.kind is EcsErrorKind.THROTTLED:
            context.read_limiter.report_throttled(target)
        elif listed.error is None:
            context.circuit_breakers.clear_read_errors([record.queue], "ListTasks")
        is_lasting = listed.error is not None and listed.error.kind in LASTING_READ_ERRORS
        age = context.ledger.now() - record.first_called_at if is_lasting else 0.0
        retry_after = min(LIST_RETRY_SECONDS, max(1.0, context.config.settle_seconds / 10))
        inputs: dict[str, Any] = {"result": listed, "age": age, "retry_after": retry_after}
        decision = decide_list(**inputs)
        write = decision.write.value
        context.telemetry.emit("decision.list_tasks", **_ids(record), write=write, **inputs, decision=decision)
        if decision.write is LedgerWrite.LAUNCHED:
            context.telemetry.emit("launch.task_found", **_ids(record), arn=decision.arn)
            self.record_launched(record, target, decision.arn)
        elif decision.write is LedgerWrite.CALL_AMBIGUOUS:
            if listed.error is not None:
                context.circuit_breakers.report_read_error(record.queue, "ListTasks", listed.error)
            context.telemetry.emit("launch.ambiguous", **_ids(record), reason=decision.reason)
            written = context.ledger.call_ambiguous(record.id, record.claim, decision.wait, decision.reason)
            crash_point("launch.list_failed")
            self._completion.handle_write_result(record, written)
        else:
            self._record_task_absent(record, decision)

    def _record_task_absent(self, record: Record, decision: CallDecision) -> None:
        advice = f"{decision.reason} {self.manual_search_advice(record)}".lstrip()
        result = self._context.ledger.task_absent(record.id, record.claim, decision.wait, advice)
        crash_point("launch.task_absent")
        self._context.telemetry.emit("launch.task_absent", **_ids(record), code=result.code.value)
        if result.record is not None and result.record.state is State.FAILED:  # it broke its workers
            self._completion.add_dead_letter(record.queue, record.request, result.record.reason)
        self._completion.handle_write_result(record, result)

    def manual_search_advice(self, record: Record) -> str:
        """Return what a person can do where no search proves anything."""
        return f"search by hand for a task with startedBy {self._context.started_by(record)}"


def _ids(record: Record) -> dict[str, Any]:
    return {"id": record.id, "launch": record.launch}


def _build_launched(record: Record, arn: str, at: float) -> Record:
    """Return a claimed record as the ledger has it since its launch was noted."""
    copy = msgspec.structs.replace(record)
    launched(copy, copy.nonce, copy.launch, arn, at)
    return copy


def _is_given_back(decision: CallDecision) -> bool:
    return decision.write is LedgerWrite.REFUSED and decision.refusal_kind is RefusalKind.GIVEN_BACK


def _is_unreachable(result: RunTaskResult) -> bool:
    """Whether the endpoint could not be reached; a call that this worker itself delayed proves nothing of it."""
    return result.kind is RunTaskResultKind.NEVER_SENT and result.error_code != CallBudgetExceeded.__name__
