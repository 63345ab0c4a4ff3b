"""Takes one request from QUEUED to LAUNCHED, or as far as ECS lets it.

Every step is written so that the process may die before or after it: the claim is in the ledger before RunTask is
sent, the ARN is in the ledger before the message is acknowledged, and the next worker resolves ambiguous calls
(docs/protocol.md).
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any

from ecs_queue.broker.base import Delivery
from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import DESCRIBE_BATCH_SIZE
from ecs_queue.errors import PermanentError, UndecodableMessage
from ecs_queue.messages import envelope
from ecs_queue.messages.envelope import TaskRequest
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
from ecs_queue.protocol.operations import ClaimRequest, OperationResult, RefusalKind, ResultCode
from ecs_queue.protocol.record import Record, build_client_token
from ecs_queue.protocol.retry import RecordedDraw
from ecs_queue.protocol.settings import ABSENCE_UNPROVABLE_AFTER
from ecs_queue.protocol.states import State
from ecs_queue.runtask.launch_spec import LaunchSpec, build_queued_task, build_submission
from ecs_queue.telemetry import emit_request_submitted
from ecs_queue.worker.completion import Completion
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.prepared_launch import PreparedLaunch, prepare_launch, receive_request
from ecs_queue.worker.rate_limiter import RateLimiter


class Launcher:
    """Launches requests. Thread-safe: each call works on one request, with the token of its ECS call already taken."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self.completion = Completion(context)

    def handle_message(self, delivery: Delivery) -> bool:
        """Store the message's request if it is new, claim its record and launch it.

        Returns:
            False when the message was not dealt with and must not be acknowledged.
        """
        context = self._context
        nonce = envelope.compute_nonce(context.config.namespace, delivery.body)
        guard = context.poison_guard.guard_delivery(nonce) if delivery.redelivered else nullcontext("")
        with guard as dead_reason:
            if not dead_reason:
                try:
                    request = receive_request(context, delivery)
                    prepared = prepare_launch(context, build_queued_task(request, 1, 0.0), nonce, 1)
                except UndecodableMessage as error:
                    dead_reason = str(error)
        if dead_reason:
            self.completion.add_dead_letter(delivery.queue, delivery.body, dead_reason)
            return True
        if prepared is None:
            return False
        submission = build_submission(request, delivery.body, nonce, context.config.launch_deadline)
        claim_request = prepared.build_claim_request(context)
        deadline = self._call_deadline()
        stored, claimed = context.ledger.put_and_claim(submission, claim_request)
        crash_point("launch.message_claimed")
        if stored.code is ResultCode.CREATED:  # a producer of another kind, which keeps no journal
            emit_request_submitted(context.telemetry, context.config.namespace, submission)
        action = context.decide_next_action("put", request.id, stored.code)
        if action in (NextAction.ADD_DEAD_LETTER, NextAction.REJECT_TOO_LATE):
            context.run_task_limiter.return_token(prepared.target)
            self._reject(delivery, request, nonce, is_too_late=action is NextAction.REJECT_TOO_LATE)
            return True
        if action is NextAction.PUBLISH_RESULT and stored.record is not None:
            self.completion.complete(stored.record)
        self._handle_claim(prepared, claim_request, claimed, deadline)
        return True

    def launch_queued(self, record: Record) -> None:
        """Launch a QUEUED record that is due: its retry was delayed, or its message was lost."""
        context = self._context
        if context.wait_for_stop(0.0):
            return  # the worker stops: the record comes due again when its lease is over
        with context.poison_guard.guard_delivery(record.nonce) as dead_reason:
            prepared = None if dead_reason else self._prepare_queued(record)
        if dead_reason:
            self.completion.fail_poison(record, dead_reason)
        if prepared is None:
            return
        claim_request = prepared.build_claim_request(context)
        deadline = self._call_deadline()
        result = context.ledger.claim(record.id, claim_request)
        crash_point("launch.claimed")
        self._handle_claim(prepared, claim_request, result, deadline)

    def expire(self, record_id: str) -> None:
        """End a QUEUED record whose deadline has passed."""
        result = self._context.ledger.claim(record_id, None)
        crash_point("launch.expired")
        action = self._context.decide_next_action("claim", record_id, result.code)
        if action is NextAction.PUBLISH_RESULT and result.record is not None:
            self.completion.complete(result.record)

    def recover(self, record: Record, limiter: RateLimiter) -> None:
        """Take over a LAUNCHING record whose lease is over, and call again or search for its task.

        Args:
            record: Its worker died, or could not find out whether its call had an effect.
            limiter: Whose token was taken. Only the ledger's answer shows which call follows: the token is exchanged.
        """
        context = self._context
        try:
            target = Target.decode(context.verifier.encoded_target(record))
        except PermanentError as error:
            self._recover_unreadable(record, str(error))
            return
        if context.wait_for_stop(0.0):
            return  # the worker stops: the record comes due again when its lease is over
        deadline = self._call_deadline()
        result = context.ledger.reclaim(record.id, context.new_claim_without_args())
        crash_point("launch.reclaimed")
        action = context.decide_next_action("reclaim", record.id, result.code)
        if result.record is None or action not in (NextAction.RUN_TASK, NextAction.LIST_TASKS):
            limiter.return_token(target)
            if action is NextAction.PUBLISH_RESULT and result.record is not None:
                self.completion.complete(result.record)
        elif action is NextAction.LIST_TASKS:
            _exchange_token(limiter, context.read_limiter, target)
            self._find_task(result.record, target)
        elif not result.record.args:
            self.completion.refuse(result.record, "the run_task arguments could not be built")
        else:
            _exchange_token(limiter, context.run_task_limiter, target)
            self._call_frozen(result.record, target, deadline, is_request_verified=False)

    def _recover_unreadable(self, record: Record, reason: str) -> None:
        """Wait for a newer worker, which may know the target; UNKNOWN when no search could prove anything any more."""
        ledger = self._context.ledger
        self._context.telemetry.emit("launch.ambiguous", id=record.id, launch=record.launch, reason=reason)
        if ledger.now() - record.first_called_at <= ABSENCE_UNPROVABLE_AFTER:
            ledger.reschedule_poll({record.id: LIST_RETRY_SECONDS})
            return
        claim_request = self._context.new_claim_without_args()
        result = ledger.reclaim(record.id, claim_request)
        crash_point("launch.reclaimed_unreadable")
        action = self._context.decide_next_action("reclaim", record.id, result.code)
        if action is NextAction.LIST_TASKS:
            advice = f"{reason} {self._manual_search_advice(record)}"
            result = ledger.task_absent(record.id, claim_request.claim, LIST_RETRY_SECONDS, advice)
            crash_point("launch.unknown")
            self.completion.handle_write_result(record, result)
        elif action is NextAction.PUBLISH_RESULT and result.record is not None:
            self.completion.complete(result.record)

    def _reject(self, delivery: Delivery, request: TaskRequest, nonce: str, *, is_too_late: bool) -> None:
        """Keep the message as a dead letter; the owner of one that came too late gets a result."""
        late = "it arrived after its accept_until"
        reason = late if is_too_late else f"another request has the id {request.id}"
        self.completion.add_dead_letter(delivery.queue, delivery.body, reason)
        if is_too_late:
            expired = Record(id=request.id, nonce=nonce, queue=request.queue, owner=request.owner)
            expired.state, expired.reason = State.EXPIRED, f"{late}; submit it again"
            self._context.publish_result(expired)

    def _prepare_queued(self, record: Record) -> PreparedLaunch | None:
        """Return what would be sent; None when the request has to wait, for the reason now in its record."""
        try:
            request = self._context.verifier.decode_request(record)
        except UndecodableMessage as error:
            self.completion.refuse_or_defer_queued(record, error)
            return None
        task = build_queued_task(request, record.attempt, record.not_before)
        return prepare_launch(self._context, task, record.nonce, record.launch)

    def _call_deadline(self) -> float:
        """Return when RunTask must have been sent: counted from before the claim, since a lease cannot fence ECS."""
        return self._context.monotonic() + self._context.config.call_budget_seconds

    def _handle_claim(
        self, prepared: PreparedLaunch, claim_request: ClaimRequest, result: OperationResult, deadline: float
    ) -> None:
        context, record = self._context, result.record
        action = context.decide_next_action("claim", str(prepared.task.key), result.code)
        if action is not NextAction.RUN_TASK or record is None:
            context.run_task_limiter.return_token(prepared.target)
            if action is NextAction.PUBLISH_RESULT and record is not None:
                self.completion.complete(record)
            elif result.code in (ResultCode.LIMIT_REACHED, ResultCode.PAUSED):
                context.admission.claim_refused(prepared.task.queue)
        elif not record.args:
            reason = prepared.invalid_reason or "the run_task arguments could not be built"
            self.completion.refuse(record, reason)
        elif prepared.spec and (record.args, record.target) == (claim_request.args, claim_request.target):
            self._call_run_task(record, prepared.spec, prepared.target, deadline)
        else:  # what an earlier claim of this launch froze counts, not what this worker would send
            self._call_frozen(record, prepared.target, deadline, is_request_verified=True)

    def _call_frozen(self, record: Record, charged: Target, deadline: float, *, is_request_verified: bool) -> None:
        """Call with the frozen arguments, if they are signed for this launch and this worker can read them.

        `charged` is the target whose token was taken.
        """
        verifier = self._context.verifier
        try:
            spec, target = verifier.decode_launch_spec(record), Target.decode(record.target)
            if not is_request_verified:
                verifier.verify_request(record)
        except PermanentError as error:
            self._context.run_task_limiter.return_token(charged)
            self.completion.refuse_or_defer(record, error)
            return
        self._call_run_task(record, spec, target, deadline)

    def _call_run_task(self, record: Record, spec: LaunchSpec, target: Target, deadline: float) -> None:
        context, ids = self._context, _ids(record)
        call = {"attempt": record.attempt, "launch_spec": record.args, "target": record.target}
        context.telemetry.emit("launch.called", **ids, **call)
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
            context.run_task_limiter.report_throttled(target)
        draw = RecordedDraw(context.rng)
        decision = decide_call(result, record, context.backoff, draw, spec.chosen)
        inputs = {"record": record, "result": result, "backoff": context.backoff, "chosen": spec.chosen}
        inputs["draw"] = draw.value
        context.telemetry.emit("decision.run_task", **ids, write=decision.write.value, **inputs, decision=decision)
        if decision.write is LedgerWrite.DESCRIBE_CONFLICT:
            decision = self._resolve_conflict(record, target, result, decision)
        if decision.write is LedgerWrite.LAUNCHED and decision.arn:
            self._record_launched(record, target, decision.arn)
        else:
            self._record_not_launched(record, spec, decision)
        if decision.opens_circuit:
            context.circuit_breakers.open(record.queue, decision.reason, target.encode())
        elif decision.write in (LedgerWrite.LAUNCHED, LedgerWrite.REFUSED) and not _is_given_back(decision):
            context.circuit_breakers.close(record.queue, target.encode())

    def _record_launched(self, record: Record, target: Target, arn: str) -> None:
        context = self._context
        wait = context.poll_schedule.first_poll_delay(record, arn)
        result = context.ledger.launched(record.id, record.nonce, record.launch, arn, wait)
        crash_point("launch.launched")
        if context.decide_next_action("launched", record.id, result.code) is NextAction.STOP_TASK:
            context.telemetry.emit("launch.unwanted", **_ids(record), arn=arn)
            context.stop_task_limiter.charge(target)
            crash_point("launch.unwanted")
            context.gateway.stop_task(target, arn, "ecs-queue: this launch is not wanted any more")
            return
        context.telemetry.emit("launch.started", **_ids(record), arn=arn)

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
        self.completion.handle_write_result(record, result)

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

    def _find_task(self, record: Record, target: Target) -> None:
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
            self._record_launched(record, target, decision.arn)
        elif decision.write is LedgerWrite.CALL_AMBIGUOUS:
            if listed.error is not None:
                context.circuit_breakers.report_read_error(record.queue, "ListTasks", listed.error)
            context.telemetry.emit("launch.ambiguous", **_ids(record), reason=decision.reason)
            written = context.ledger.call_ambiguous(record.id, record.claim, decision.wait, decision.reason)
            crash_point("launch.list_failed")
            self.completion.handle_write_result(record, written)
        else:
            self._record_task_absent(record, decision)

    def _record_task_absent(self, record: Record, decision: CallDecision) -> None:
        advice = f"{decision.reason} {self._manual_search_advice(record)}".lstrip()
        result = self._context.ledger.task_absent(record.id, record.claim, decision.wait, advice)
        crash_point("launch.task_absent")
        self._context.telemetry.emit("launch.task_absent", **_ids(record), code=result.code.value)
        if result.record is not None and result.record.state is State.FAILED:  # it broke its workers
            self.completion.add_dead_letter(record.queue, record.request, result.record.reason)
        self.completion.handle_write_result(record, result)

    def _manual_search_advice(self, record: Record) -> str:
        return f"search by hand for a task with startedBy {self._context.started_by(record)}"


def _ids(record: Record) -> dict[str, Any]:
    return {"id": record.id, "launch": record.launch}


def _is_given_back(decision: CallDecision) -> bool:
    return decision.write is LedgerWrite.REFUSED and decision.refusal_kind is RefusalKind.GIVEN_BACK


def _exchange_token(given: RateLimiter, needed: RateLimiter, target: Target) -> None:
    if given is not needed:
        given.return_token(target)
        needed.charge(target)
