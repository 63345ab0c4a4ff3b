"""What becomes of requests that are not launched, and what is told of the end of any."""

from __future__ import annotations

from ecs_queue.crash_points import crash_point
from ecs_queue.errors import PermanentError, SealedMessage, UnverifiedMessage
from ecs_queue.ledger.base import DeadLetter
from ecs_queue.messages.envelope import TaskRequest
from ecs_queue.protocol.decisions import NextAction, next_action
from ecs_queue.protocol.operations import ClaimRequest, OperationResult, RefusalKind, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State
from ecs_queue.telemetry import Telemetry
from ecs_queue.worker.context import WorkerContext

#: The most seconds that a record waits for a worker that can read it.
_MAX_UNREADABLE_DELAY = 30.0


class Completion:
    """Ends them, or leaves them to another worker. Thread-safe. `wait`: seconds that a refusal names."""

    def __init__(self, context: WorkerContext, retry_wait: float) -> None:
        self._context = context
        self._retry_wait = retry_wait

    def add_dead_letter(self, queue: str, body: bytes, reason: str) -> None:
        """Keep a message that cannot be used as a dead letter."""
        parts = self._context
        parts.ledger.add_dead_letter(DeadLetter(key=parts.new_id(), queue=queue, reason=reason, body=body))
        crash_point("completion.dead_lettered")
        parts.telemetry.emit("request.dead_lettered", queue=queue, reason=reason, bytes=len(body))

    def refuse(self, record: Record, reason: str) -> None:
        """The claim is ours, nothing was sent and nothing ever can be."""
        kind = RefusalKind.PERMANENT
        self._context.telemetry.emit(
            "launch.refused", id=record.id, launch=record.launch, kind=kind.value, reason=reason
        )
        answer = self._context.ledger.refused(record.id, record.claim, kind, self._retry_wait, reason, max_attempts=1)
        crash_point("completion.refused")
        self.handle_write_result(record, answer)

    def refuse_or_defer(self, record: Record, error: PermanentError) -> None:
        """The claim is ours, nothing was sent. What is not signed by us is refused. What another worker may be able to
        read waits for one; without one it expires, and its reason says why."""
        if isinstance(error, UnverifiedMessage):
            self.refuse(record, f"not launched: {error}")
            return
        reason = str(error) if isinstance(error, SealedMessage) else f"{error}: update the workers"
        self._context.telemetry.emit("launch.no_effect", id=record.id, launch=record.launch, reason=reason)
        wait = min(_MAX_UNREADABLE_DELAY, self._context.config.lease_seconds)
        answer = self._context.ledger.no_effect(record.id, record.claim, wait, reason)
        crash_point("completion.deferred")
        self.handle_write_result(record, answer)

    def refuse_or_defer_queued(self, record: Record, error: PermanentError) -> None:
        """A QUEUED record that must not be launched, or not by this worker."""
        claimed = self._claim_without_args(record)
        if claimed is not None:
            self.refuse_or_defer(claimed, error)

    def fail_poison(self, record: Record, reason: str) -> None:
        """A QUEUED record that breaks its workers: a dead letter, and FAILED. Its request is not read again."""
        self.add_dead_letter(record.queue, record.request, reason)
        claimed = self._claim_without_args(record)
        if claimed is not None:
            self.refuse(claimed, reason)

    def handle_write_result(self, record: Record, result: OperationResult) -> None:
        """What the ledger answered to a write."""
        step = decide_next_action(self._context.telemetry, "write", record.id, result.code)
        if step is NextAction.REPORT_CLAIM_LOST:
            self._context.telemetry.emit("launch.claim_lost", id=record.id, launch=record.launch)
        elif step is NextAction.PUBLISH_RESULT and result.record is not None:
            self.complete(result.record)

    def complete(self, record: Record) -> None:
        """It has ended: tell, and announce the result."""
        emit_request_ended(self._context.telemetry, record)
        self._context.publish_result(record)

    def _claim_without_args(self, record: Record) -> Record | None:
        """To say something of it: without arguments, for nothing is sent. None: it is not ours, or has ended."""
        offer = ClaimRequest(claim=self._context.new_id(), worker=self._context.worker_name, args="", target="")
        answer = self._context.ledger.claim(record.id, offer)
        crash_point("completion.claimed")
        step = decide_next_action(self._context.telemetry, "claim", record.id, answer.code)
        if step is NextAction.PUBLISH_RESULT and answer.record is not None:
            self.complete(answer.record)
        return answer.record if step is NextAction.RUN_TASK else None


def decide_next_action(telemetry: Telemetry, operation: str, id: str, code: ResultCode) -> NextAction:
    """What to do after a word of the ledger; told."""
    step = next_action(operation, code)
    telemetry.emit("decision.next_action", id=id, operation=operation, code=code.value, next_action=step.value)
    return step


def emit_request_ended(telemetry: Telemetry, record: Record) -> None:
    """The last event of a request."""
    telemetry.emit(
        "request.ended",
        id=record.id,
        state=record.state.value,
        exit_code="-" if record.exit_code is None else record.exit_code,
        attempts=record.attempts,
        reason=record.reason,
    )


def build_expired_record(request: TaskRequest, nonce: str) -> Record:
    """The result of a request that no record is made of any more."""
    return Record(
        id=request.id,
        nonce=nonce,
        queue=request.queue,
        owner=request.owner,
        state=State.EXPIRED,
        reason="it arrived after its accept_until; submit it again",
    )
