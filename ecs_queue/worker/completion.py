"""Ends requests that are not launched, or leaves them to another worker, and reports the end of any request."""

from __future__ import annotations

from ecs_queue.crash_points import crash_point
from ecs_queue.errors import PermanentError, SealedMessage, UnverifiedMessage
from ecs_queue.ledger.entries import DeadLetter, dead_letter_key
from ecs_queue.protocol.decisions import NextAction
from ecs_queue.protocol.operations import OperationResult, RefusalKind
from ecs_queue.protocol.record import Record
from ecs_queue.worker.context import WorkerContext

#: The longest time between tries to find a worker that can read a record. Seconds.
_MAX_UNREADABLE_DELAY = 30.0


class Completion:
    """Writes refusals, deferrals and dead letters, and publishes results. Thread-safe."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context

    def add_dead_letter(self, queue: str, body: bytes, reason: str) -> None:
        """Keep a message that cannot be used as a dead letter."""
        context = self._context
        key = dead_letter_key(queue, context.new_id())
        context.ledger.add_dead_letter(DeadLetter(key=key, queue=queue, reason=reason, body=body))
        crash_point("completion.dead_lettered")
        context.telemetry.emit("request.dead_lettered", queue=queue, reason=reason, bytes=len(body))

    def refuse(self, record: Record, reason: str) -> None:
        """End a record that this worker has claimed: nothing was sent and nothing ever can be."""
        kind = RefusalKind.PERMANENT
        self._context.telemetry.emit(
            "launch.refused", id=record.id, launch=record.launch, kind=kind.value, reason=reason
        )
        wait = self._context.backoff.base
        result = self._context.ledger.refused(record.id, record.claim, kind, wait, reason, max_attempts=1)
        crash_point("completion.refused")
        self.handle_write_result(record, result)

    def refuse_or_defer(self, record: Record, error: PermanentError) -> None:
        """Refuse or defer a record that this worker has claimed and cannot read; nothing was sent.

        A record without our signature is refused. One that another worker may be able to read waits for that worker; if
        none comes, the record expires, and its reason says why.
        """
        if isinstance(error, UnverifiedMessage):
            self.refuse(record, f"not launched: {error}")
            return
        reason = str(error) if isinstance(error, SealedMessage) else f"{error}: update the workers"
        self._context.telemetry.emit("launch.no_effect", id=record.id, launch=record.launch, reason=reason)
        wait = min(_MAX_UNREADABLE_DELAY, self._context.config.lease_seconds)
        result = self._context.ledger.no_effect(record.id, record.claim, wait, reason)
        crash_point("completion.deferred")
        self.handle_write_result(record, result)

    def refuse_or_defer_queued(self, record: Record, error: PermanentError) -> None:
        """Claim a QUEUED record that this worker cannot read, then refuse or defer it."""
        claimed = self._claim_without_args(record)
        if claimed is not None:
            self.refuse_or_defer(claimed, error)

    def fail_poison(self, record: Record, reason: str) -> None:
        """End a QUEUED record that kills its workers as FAILED, with a dead letter. Its request is not decoded."""
        self.add_dead_letter(record.queue, record.request, reason)
        claimed = self._claim_without_args(record)
        if claimed is not None:
            self.refuse(claimed, reason)

    def handle_write_result(self, record: Record, result: OperationResult) -> None:
        """Publish the result when a write has ended the record; report a claim that was lost."""
        action = self._context.decide_next_action("write", record.id, result.code)
        if action is NextAction.REPORT_CLAIM_LOST:
            self._context.telemetry.emit("launch.claim_lost", id=record.id, launch=record.launch)
        elif action is NextAction.PUBLISH_RESULT and result.record is not None:
            self.complete(result.record)

    def complete(self, record: Record) -> None:
        """Report the end of a record, and publish its result."""
        self._context.telemetry.emit(
            "request.ended",
            id=record.id,
            queue=record.queue,
            state=record.state.value,
            exit_code="-" if record.exit_code is None else record.exit_code,
            stop_code=record.stop_code,
            attempts=record.attempts,
            reason=record.reason,
        )
        self._context.publish_result(record)
        self._context.tracing.end_request(record)

    def _claim_without_args(self, record: Record) -> Record | None:
        """Return the claimed record; None when another worker has it, or it has ended."""
        result = self._context.ledger.claim(record.id, self._context.new_claim_without_args())
        crash_point("completion.claimed")
        action = self._context.decide_next_action("claim", record.id, result.code)
        if action is NextAction.PUBLISH_RESULT and result.record is not None:
            self.complete(result.record)
        return result.record if action is NextAction.RUN_TASK else None
