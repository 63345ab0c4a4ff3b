"""Takes one request from QUEUED to LAUNCHED, or as far as ECS lets it.

Every step is written so that the process may die before or after it: the claim is in the ledger before RunTask is
sent, the ARN is in the ledger before the message is acknowledged, and what is in doubt is settled by whoever comes
next (PROTOCOL.md).
"""

from __future__ import annotations

from ecs_queue.broker.base import Delivery
from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import Target
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
from ecs_queue.protocol.operations import ClaimRequest, OperationResult, ResultCode
from ecs_queue.protocol.record import Record, build_client_token, build_started_by
from ecs_queue.protocol.retry import Backoff, RecordedDraw
from ecs_queue.protocol.settings import ABSENCE_UNPROVABLE_AFTER
from ecs_queue.protocol.states import State
from ecs_queue.runtask.launch_spec import LaunchSpec, build_queued_task, build_submission
from ecs_queue.telemetry import emit_request_submitted
from ecs_queue.worker.completion import Completion, build_expired_record, decide_next_action
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.prepared_launch import PreparedLaunch, prepare_delivery, prepare_launch
from ecs_queue.worker.rate_limiter import RateLimiter


class Launcher:
    """Thread-safe: each call works on one request, and has been given the token of its call (`slots.Slots`)."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._backoff = Backoff(context.config.retry_base_seconds, context.config.retry_cap_seconds)
        self._completion = Completion(context, self._backoff.base)

    def handle_message(self, delivery: Delivery) -> bool:
        """A message: store its request if it is new, claim and launch it. False: not dealt with, do not acknowledge."""
        parts = self._context
        nonce = envelope.compute_nonce(parts.config.namespace, delivery.body)
        if not delivery.redelivered:
            draft, dead = prepare_delivery(parts, delivery, nonce)
        else:
            with parts.poison_guard.guard_delivery(nonce) as harm:
                draft, dead = (None, harm) if harm else prepare_delivery(parts, delivery, nonce)
        if dead:
            self.add_dead_letter(delivery.queue, delivery.body, dead)
            return True
        if draft is None:
            return False
        request = draft.request
        submission = build_submission(request, delivery.body, nonce, parts.config.launch_deadline)
        offer = draft.build_claim_request(parts)
        deadline = self._call_deadline()
        stored, claimed = parts.ledger.put_and_claim(submission, offer)
        crash_point("launch.admitted")
        if stored.code is ResultCode.CREATED:  # a producer of another kind, which keeps no journal
            emit_request_submitted(parts.telemetry, parts.config.namespace, submission)
        step = self._decide_next_action("put", request.id, stored.code)
        if step is NextAction.ADD_DEAD_LETTER:
            parts.run_task_limiter.return_token(draft.target)
            self.add_dead_letter(delivery.queue, delivery.body, f"another request has the id {request.id}")
            return True
        if step is NextAction.REJECT_TOO_LATE:
            parts.run_task_limiter.return_token(draft.target)
            self.add_dead_letter(delivery.queue, delivery.body, "it arrived after its accept_until")
            parts.publish_result(build_expired_record(request, nonce))
            return True
        if step is NextAction.PUBLISH_RESULT and stored.record is not None:
            self._completion.complete(stored.record)
        self._handle_claim(request.id, claimed, draft, offer, deadline)
        return True

    def launch_queued(self, record: Record) -> None:
        """A QUEUED record that is due: its delayed retry, or its message was lost."""
        parts = self._context
        if parts.wait_for_stop(0.0):
            return  # the worker stops: it comes due again when the lease is over
        with parts.poison_guard.guard_delivery(record.nonce) as harm:
            draft = None if harm else self._prepare_queued(record)
        if harm:
            self._completion.fail_poison(record, harm)
            return
        if draft is None:
            return
        offer = draft.build_claim_request(parts)
        deadline = self._call_deadline()
        answer = parts.ledger.claim(record.id, offer)
        crash_point("launch.claimed")
        self._handle_claim(record.id, answer, draft, offer, deadline)

    def expire(self, record_id: str) -> None:
        """End a QUEUED record whose deadline has passed."""
        answer = self._context.ledger.claim(record_id, None)
        crash_point("launch.expired")
        if (
            self._decide_next_action("claim", record_id, answer.code) is NextAction.PUBLISH_RESULT
            and answer.record is not None
        ):
            self._completion.complete(answer.record)

    def recover(self, record: Record, limiter: RateLimiter) -> None:
        """A LAUNCHING record whose lease is over: its worker died or is in doubt. Call again, or look.

        `quota`: whose token is here; which one is needed shows only in the ledger's answer.
        """
        parts = self._context
        try:
            target = Target.decode(parts.verifier.encoded_target(record))
        except PermanentError as error:
            self._recover_unreadable(record, str(error))
            return
        if parts.wait_for_stop(0.0):
            return  # the worker stops: it comes due again when the lease is over
        offer = ClaimRequest(claim=parts.new_id(), worker=parts.worker_name, args="", target="")
        deadline = self._call_deadline()
        answer = parts.ledger.reclaim(record.id, offer)
        crash_point("launch.reclaimed")
        step = self._decide_next_action("reclaim", record.id, answer.code)
        if answer.record is None or step not in (NextAction.RUN_TASK, NextAction.LIST_TASKS):
            limiter.return_token(target)
            if step is NextAction.PUBLISH_RESULT and answer.record is not None:
                self._completion.complete(answer.record)
            return
        if step is NextAction.LIST_TASKS:
            self._exchange_token(limiter, parts.read_limiter, target)
            self._find_task(answer.record, target)
        elif not answer.record.args:
            self._completion.refuse(answer.record, "the run_task arguments could not be built")
        else:
            self._exchange_token(limiter, parts.run_task_limiter, target)
            self._call_frozen(answer.record, target, None, deadline)

    def _recover_unreadable(self, record: Record, reason: str) -> None:
        """A newer worker may know the target. Without one nobody can look: UNKNOWN when nothing would be proof."""
        ledger = self._context.ledger
        self._context.telemetry.emit("launch.ambiguous", id=record.id, launch=record.launch, reason=reason)
        if ledger.now() - record.first_called_at <= ABSENCE_UNPROVABLE_AFTER:
            ledger.reschedule_poll({record.id: LIST_RETRY_SECONDS})
            return
        offer = ClaimRequest(claim=self._context.new_id(), worker=self._context.worker_name, args="", target="")
        answer = ledger.reclaim(record.id, offer)
        crash_point("launch.reclaimed_unreadable")
        step = self._decide_next_action("reclaim", record.id, answer.code)
        if step is NextAction.LIST_TASKS:
            answer = ledger.task_absent(
                record.id, offer.claim, LIST_RETRY_SECONDS, f"{reason} {self._manual_check_hint(record)}"
            )
            crash_point("launch.unknown")
            self._completion.handle_write_result(record, answer)
        elif step is NextAction.PUBLISH_RESULT and answer.record is not None:
            self._completion.complete(answer.record)

    def _exchange_token(self, given: RateLimiter, needed: RateLimiter, target: Target) -> None:
        if given is not needed:
            given.return_token(target)
            needed.charge(target)

    def add_dead_letter(self, queue: str, body: bytes, reason: str) -> None:
        """Keep a message that cannot be used as a dead letter."""
        self._completion.add_dead_letter(queue, body, reason)

    def _prepare_queued(self, record: Record) -> PreparedLaunch | None:
        """The draft of a QUEUED record. None: not now, and its reason says why."""
        try:
            request = self._context.verifier.decode_request(record)
        except UndecodableMessage as error:
            self._completion.refuse_or_defer_queued(record, error)
            return None
        return prepare_launch(self._context, request, record.nonce, record.launch)

    def _call_deadline(self) -> float:
        """RunTask must not be sent later: counted from before the claim, for a lease cannot fence ECS."""
        return self._context.monotonic() + self._context.config.call_budget_seconds

    def _handle_claim(
        self, id: str, result: OperationResult, prepared: PreparedLaunch, claim_request: ClaimRequest, deadline: float
    ) -> None:
        record = result.record
        step = self._decide_next_action("claim", id, result.code)
        if step is not NextAction.RUN_TASK or record is None:
            self._context.run_task_limiter.return_token(prepared.target)
            if step is NextAction.PUBLISH_RESULT and record is not None:
                self._completion.complete(record)
            elif result.code in (ResultCode.LIMIT_REACHED, ResultCode.PAUSED):
                self._context.admission.claim_refused(prepared.request.queue)
            return
        if not record.args:
            self._completion.refuse(record, prepared.invalid_reason or "the run_task arguments could not be built")
            return
        # What an earlier claim of the same launch number froze counts, not what this worker would send.
        frozen = record.args != claim_request.args or record.target != claim_request.target
        if frozen or prepared.spec is None:
            self._call_frozen(record, prepared.target, prepared.request, deadline)
        else:
            self._call_run_task(record, prepared.spec, prepared.target, prepared.request, deadline)

    def _call_frozen(self, record: Record, charged: Target, request: TaskRequest | None, deadline: float) -> None:
        """Call with what the record says, when it is signed for this launch and can be read here.

        `charged`: whose token is here. `request`: None when it was not read yet; when only others can read it, too.
        """
        try:
            plan, target = self._context.verifier.decode_launch_spec(record), Target.decode(record.target)
            request = request or self._context.verifier.decode_verified_request(record)
        except PermanentError as error:
            self._context.run_task_limiter.return_token(charged)
            self._completion.refuse_or_defer(record, error)
            return
        self._call_run_task(record, plan, target, request, deadline)

    def _call_run_task(
        self, record: Record, spec: LaunchSpec, target: Target, request: TaskRequest | None, deadline: float
    ) -> None:
        parts = self._context
        told = {"id": record.id, "launch": record.launch}
        parts.telemetry.emit(
            "launch.called", **told, attempt=record.attempt, launch_spec=record.args, target=record.target
        )
        crash_point("launch.calling")
        answer = parts.gateway.run_task(
            target,
            spec.run_task,
            client_token=build_client_token(record.id, record.nonce, record.launch),
            started_by=build_started_by(parts.config.namespace, record.id, record.nonce, record.launch),
            deadline=deadline,
        )
        crash_point("launch.answered")
        if answer.kind is RunTaskResultKind.THROTTLED:
            parts.run_task_limiter.report_throttled(target)
        draw = RecordedDraw(parts.rng)
        decision = decide_call(answer, record, self._backoff, draw)
        inputs = {"record": record, "result": answer, "backoff": self._backoff, "draw": draw.value}
        parts.telemetry.emit("decision.run_task", **told, write=decision.write.value, **inputs, decision=decision)
        if decision.write is LedgerWrite.DESCRIBE_CONFLICT:
            decision = self._resolve_conflict(record, target, answer, decision)
        if decision.write is LedgerWrite.LAUNCHED and decision.arn:
            self._record_launched(record, target, request, decision.arn)
        else:
            self._record_not_launched(record, spec, decision)
        if decision.opens_circuit:
            parts.circuit_breakers.open(record.queue, decision.reason)
        elif decision.write in (LedgerWrite.LAUNCHED, LedgerWrite.REFUSED):
            parts.circuit_breakers.close(record.queue)

    def _record_launched(self, record: Record, target: Target, request: TaskRequest | None, arn: str) -> None:
        parts = self._context
        if request is not None:
            # In flight first: the tracker may look at it the moment the ledger knows it.
            parts.in_flight.add(arn, build_queued_task(request, record.attempt, record.not_before))
        wait = parts.poll_schedule.first_poll_delay(record, arn)
        answer = parts.ledger.launched(record.id, record.nonce, record.launch, arn, wait)
        crash_point("launch.launched")
        if self._decide_next_action("launched", record.id, answer.code) is NextAction.STOP_TASK:
            parts.in_flight.drop(record.id)
            parts.telemetry.emit("launch.unwanted", id=record.id, launch=record.launch, arn=arn)
            parts.stop_task_limiter.charge(target)
            crash_point("launch.unwanted")
            parts.gateway.stop_task(target, arn, "ecs-queue: this launch is not wanted any more")
            return
        parts.telemetry.emit("launch.started", id=record.id, launch=record.launch, arn=arn)

    def _record_not_launched(self, record: Record, spec: LaunchSpec, decision: CallDecision) -> None:
        parts = self._context
        told = {"id": record.id, "launch": record.launch, "reason": decision.reason}
        if decision.write is LedgerWrite.NO_EFFECT:
            parts.telemetry.emit("launch.no_effect", **told)
            answer = parts.ledger.no_effect(record.id, record.claim, decision.wait, decision.reason)
            crash_point("launch.no_effect")
        elif decision.write is LedgerWrite.CALL_AMBIGUOUS:
            parts.telemetry.emit("launch.ambiguous", **told)
            answer = parts.ledger.call_ambiguous(
                record.id, record.claim, decision.wait, decision.reason, decision.call_completed
            )
            crash_point("launch.ambiguous")
        else:
            parts.telemetry.emit("launch.refused", kind=decision.refusal_kind.value, **told)
            answer = parts.ledger.refused(
                record.id, record.claim, decision.refusal_kind, decision.wait, decision.reason, spec.max_attempts
            )
            crash_point("launch.refused")
        self._completion.handle_write_result(record, answer)

    def _resolve_conflict(
        self, record: Record, target: Target, result: RunTaskResult, call_decision: CallDecision
    ) -> CallDecision:
        """ConflictException: adopt the task it names only when its startedBy is ours."""
        parts = self._context
        wanted = build_started_by(parts.config.namespace, record.id, record.nonce, record.launch)
        parts.read_limiter.charge(target)
        shown = parts.gateway.describe_tasks(target, result.conflicting_arns[:100]).tasks
        crash_point("launch.conflict_described")
        decision = decide_conflict(call_decision, wanted, result.conflicting_arns, shown)
        inputs = {
            "call_decision": call_decision,
            "started_by": wanted,
            "conflicting_arns": result.conflicting_arns,
            "tasks": shown,
        }
        told = {"id": record.id, "launch": record.launch, "write": decision.write.value}
        parts.telemetry.emit("decision.conflict", **told, **inputs, decision=decision)
        return decision

    def _find_task(self, record: Record, target: Target) -> None:
        """LOOK: what ListTasks shows exists; what it does not show is proof only after H."""
        parts = self._context
        parts.read_limiter.charge(target)  # the second call: RUNNING, then STOPPED
        listed = parts.gateway.list_tasks(
            target, build_started_by(parts.config.namespace, record.id, record.nonce, record.launch)
        )
        crash_point("launch.tasks_listed")
        if listed.error is not None and listed.error.kind is EcsErrorKind.THROTTLED:
            parts.read_limiter.report_throttled(target)
        elif listed.error is None:
            parts.circuit_breakers.clear_read_errors([record.queue], "ListTasks")
        is_lasting = listed.error is not None and listed.error.kind in LASTING_READ_ERRORS
        age = parts.ledger.now() - record.first_called_at if is_lasting else 0.0
        inputs = {"result": listed, "age": age, "retry_after": self._list_interval()}
        decision = decide_list(**inputs)  # type: ignore[arg-type]
        told = {"id": record.id, "launch": record.launch}
        parts.telemetry.emit("decision.list_tasks", **told, write=decision.write.value, **inputs, decision=decision)
        if decision.write is LedgerWrite.LAUNCHED:
            parts.telemetry.emit("launch.task_found", **told, arn=decision.arn)
            self._record_launched(record, target, parts.verifier.decode_request_or_none(record), decision.arn)
        elif decision.write is LedgerWrite.CALL_AMBIGUOUS:
            if listed.error is not None:
                parts.circuit_breakers.report_read_error(record.queue, "ListTasks", listed.error)
            parts.telemetry.emit("launch.ambiguous", **told, reason=decision.reason)
            answer = parts.ledger.call_ambiguous(record.id, record.claim, decision.wait, decision.reason)
            crash_point("launch.list_failed")
            self._completion.handle_write_result(record, answer)
        else:
            self._record_task_absent(record, decision)

    def _record_task_absent(self, record: Record, decision: CallDecision) -> None:
        why = f"{decision.reason} {self._manual_check_hint(record)}".lstrip()
        answer = self._context.ledger.task_absent(record.id, record.claim, decision.wait, why)
        crash_point("launch.task_absent")
        told = {"id": record.id, "launch": record.launch, "code": answer.code.value}
        self._context.telemetry.emit("launch.task_absent", **told)
        if answer.record is not None and answer.record.state is State.FAILED:  # it broke its workers
            self.add_dead_letter(record.queue, record.request, answer.record.reason)
        self._completion.handle_write_result(record, answer)

    def _manual_check_hint(self, record: Record) -> str:
        wanted = build_started_by(self._context.config.namespace, record.id, record.nonce, record.launch)
        return f"look by hand for a task with startedBy {wanted}"

    def _list_interval(self) -> float:
        return min(LIST_RETRY_SECONDS, max(1.0, self._context.config.settle_seconds / 10))

    def _decide_next_action(self, operation: str, id: str, code: ResultCode) -> NextAction:
        return decide_next_action(self._context.telemetry, operation, id, code)
