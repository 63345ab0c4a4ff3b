"""Takes one request from QUEUED to LAUNCHED, or as far as ECS lets it.

Every step is written so that the process may die before or after it: the claim is in the ledger before RunTask is
sent, the ARN is in the ledger before the message is acknowledged, and the next worker resolves ambiguous calls
(docs/protocol.md).
"""

from __future__ import annotations

from contextlib import nullcontext

from ecs_queue.broker.base import Delivery
from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import Target
from ecs_queue.errors import PermanentError, UndecodableMessage
from ecs_queue.messages import envelope
from ecs_queue.messages.request import TaskRequest
from ecs_queue.protocol.decisions import LIST_RETRY_SECONDS, NextAction
from ecs_queue.protocol.operations import ClaimRequest, OperationResult, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.record_moves import queued_at
from ecs_queue.protocol.settings import ABSENCE_UNPROVABLE_AFTER
from ecs_queue.protocol.states import State
from ecs_queue.runtask.launch_spec import build_queued_task, build_submission
from ecs_queue.telemetry import emit_request_submitted
from ecs_queue.worker.completion import Completion
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.launch_calls import LaunchCalls
from ecs_queue.worker.prepared_launch import PreparedLaunch, prepare_launch, receive_request
from ecs_queue.worker.rate_limiter import RateLimiter


class Launcher:
    """Launches requests. Thread-safe: each call works on one request, with the token of its ECS call already taken."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self.completion = Completion(context)
        self.calls = LaunchCalls(context, self.completion)

    def handle_message(self, delivery: Delivery, *, may_call: bool = True) -> bool | None:
        """Store the message's request if it is new, claim its record and launch it.

        Args:
            delivery: The message.
            may_call: False: no token of a call was taken, so only an idle runner may take the request.

        Returns:
            False when the message was not dealt with and must not be acknowledged; None when no runner is idle, and a
            call is needed.
        """
        context = self._context
        nonce = envelope.compute_nonce(context.config.namespace, delivery.body)
        guard = context.poison_guard.guard_delivery(nonce) if delivery.redelivered else nullcontext("")
        with guard as dead_reason:
            if not dead_reason:
                try:
                    request = receive_request(context, delivery, is_again=may_call and context.is_warm(delivery.queue))
                    task = build_queued_task(request, 1, 0.0)
                    prepared = prepare_launch(context, task, nonce, 1, request)
                except UndecodableMessage as error:
                    dead_reason = str(error)
        if dead_reason:
            self.completion.add_dead_letter(delivery.queue, delivery.body, dead_reason)
            return True
        if prepared is None:
            return False
        submission = build_submission(request, delivery.body, nonce, context.config.launch_deadline)
        claim_request = prepared.build_claim_request(context, may_call=may_call)
        deadline = self._call_deadline()
        stored, claimed = context.ledger.put_and_claim(submission, claim_request)
        crash_point("launch.message_claimed")
        if stored.code is ResultCode.CREATED:  # a producer of another kind, which keeps no journal
            emit_request_submitted(context.telemetry, context.config.namespace, submission)
        action = context.decide_next_action("put", request.id, stored.code)
        if action in (NextAction.ADD_DEAD_LETTER, NextAction.REJECT_TOO_LATE):
            if may_call:
                context.return_launch_token(request.queue, prepared.target)
            self._reject(delivery, request, nonce, stored.code)
            return True
        if action is NextAction.PUBLISH_RESULT and stored.record is not None:
            self.completion.complete(stored.record)
        self._handle_claim(prepared, claim_request, claimed, deadline)
        return None if claimed.code is ResultCode.NO_RUNNER else True

    def launch_queued(self, record: Record, *, may_call: bool = True) -> bool:
        """Launch a QUEUED record that is due: its retry was delayed, or its message was lost.

        Args:
            record: With its payload.
            may_call: As of `handle_message`.

        Returns:
            False when no runner is idle, and a call is needed.
        """
        context = self._context
        if context.wait_for_stop(0.0):
            return True  # the worker stops: the record comes due again when its lease is over
        with context.poison_guard.guard_delivery(record.nonce) as dead_reason:
            prepared = None if dead_reason else self._prepare_queued(record)
        if dead_reason:
            self.completion.fail_poison(record, dead_reason)
        if prepared is None:
            return True
        claim_request = prepared.build_claim_request(context, may_call=may_call)
        deadline = self._call_deadline()
        result = context.ledger.claim(record.id, claim_request)
        crash_point("launch.claimed")
        self._handle_claim(prepared, claim_request, result, deadline)
        return result.code is not ResultCode.NO_RUNNER

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
            limiter.exchange_token(context.read_limiter, target)
            self.calls.find_task(result.record, target)
        elif not result.record.args:
            self.completion.refuse(result.record, "the run_task arguments could not be built")
        else:
            limiter.exchange_token(context.launch_limiter(record.queue), target)
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
            advice = f"{reason} {self.calls.manual_search_advice(record)}"
            result = ledger.task_absent(record.id, claim_request.claim, LIST_RETRY_SECONDS, advice)
            crash_point("launch.unknown")
            self.completion.handle_write_result(record, result)
        elif action is NextAction.PUBLISH_RESULT and result.record is not None:
            self.completion.complete(result.record)

    def _reject(self, delivery: Delivery, request: TaskRequest, nonce: str, code: ResultCode) -> None:
        """Keep the message as a dead letter; the owner of one that came too late gets a result."""
        late = "it arrived after its accept_until"
        reasons = {
            ResultCode.TOO_LATE: late,
            ResultCode.BROKEN: f"the ledger's record of the id {request.id} is broken: `ecs-queue broken list`",
        }
        reason = reasons.get(code, f"another request has the id {request.id}")
        self.completion.add_dead_letter(delivery.queue, delivery.body, reason)
        if code is ResultCode.TOO_LATE:
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
        return prepare_launch(self._context, task, record.nonce, record.launch, request)

    def _call_deadline(self) -> float:
        """Return when RunTask must have been sent: counted from before the claim, since a lease cannot fence ECS."""
        return self._context.monotonic() + self._context.config.call_budget_seconds

    def _handle_claim(
        self, prepared: PreparedLaunch, claim_request: ClaimRequest, result: OperationResult, deadline: float
    ) -> None:
        context, record = self._context, result.record
        action = context.decide_next_action("claim", str(prepared.task.key), result.code)
        if action is not NextAction.RUN_TASK or record is None:
            if claim_request.may_call:
                context.return_launch_token(prepared.task.queue, prepared.target)
            if result.code is ResultCode.ASSIGNED and record is not None:
                context.telemetry.emit(
                    "launch.assigned",
                    id=record.id,
                    launch=record.launch,
                    run=record.run,
                    arn=record.arn,
                    queue=record.queue,
                    queued_at=queued_at(record),
                )
            if action is NextAction.PUBLISH_RESULT and record is not None:
                self.completion.complete(record)
            elif result.code in (ResultCode.LIMIT_REACHED, ResultCode.PAUSED):
                context.admission.claim_refused(prepared.task.queue)
            elif result.code is ResultCode.KEY_FULL:  # requests of other keys may still be launched
                context.admission.launch_over(prepared.task.queue)
                context.telemetry.emit(
                    "request.waits_for_key",
                    id=str(prepared.task.key),
                    queue=prepared.task.queue,
                    concurrency_key=prepared.policies.concurrency_key,
                )
        elif not record.args:
            reason = prepared.invalid_reason or "the run_task arguments could not be built"
            self.completion.refuse(record, reason)
        elif prepared.spec and (record.args, record.target) == (claim_request.args, claim_request.target):
            self.calls.run_task(record, prepared.spec, prepared.target, deadline)
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
            self._context.launch_limiter(record.queue).return_token(charged)
            self.completion.refuse_or_defer(record, error)
            return
        self.calls.run_task(record, spec, target, deadline)
