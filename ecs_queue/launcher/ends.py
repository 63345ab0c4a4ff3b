"""What becomes of requests that are not launched, and what is told of the end of any."""

from __future__ import annotations

from ecs_queue.core.decide import Step, next_step
from ecs_queue.core.envelope import TaskRequest
from ecs_queue.core.protocol import Answer, ClaimOffer, Refusal, RefusalKind, Word
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.crashpoints import reach
from ecs_queue.errors import PermanentError, SealedMessage, UnverifiedMessage
from ecs_queue.launcher.parts import Parts
from ecs_queue.ledger.base import DeadLetter
from ecs_queue.telemetry import Telemetry

#: Seconds that a record waits for a worker that can read it.
_UNTIL_SOMEBODY_CAN_READ_IT = 30.0


class Ends:
    """Ends them, or leaves them to another worker. Thread-safe. `wait`: seconds that a refusal names."""

    def __init__(self, parts: Parts, wait: float) -> None:
        self._parts = parts
        self._wait = wait

    def bury(self, queue: str, body: bytes, reason: str) -> None:
        """Keep a message that cannot be used as a dead letter."""
        parts = self._parts
        parts.ledger.bury(DeadLetter(key=parts.new_id(), queue=queue, reason=reason, body=body))
        reach("launch.buried")
        parts.telemetry.emit("request.dead", queue=queue, reason=reason, bytes=len(body))

    def refuse(self, record: Record, reason: str) -> None:
        """The claim is ours, nothing was sent and nothing ever can be."""
        refusal = Refusal(kind=RefusalKind.PERMANENT, reason=reason, wait=self._wait, max_attempts=1)
        self._parts.telemetry.emit(
            "launch.refused", id=record.id, launch=record.launch, kind=refusal.kind.value, reason=reason
        )
        answer = self._parts.ledger.refused(record.id, record.claim, refusal)
        reach("launch.impossible")
        self.written(record, answer)

    def refuse_or_leave(self, record: Record, error: PermanentError) -> None:
        """The claim is ours, nothing was sent. What is not signed by us is refused. What another worker may be able to
        read waits for one; without one it expires, and its reason says why."""
        if isinstance(error, UnverifiedMessage):
            self.refuse(record, f"not launched: {error}")
            return
        reason = str(error) if isinstance(error, SealedMessage) else f"{error}: update the workers"
        self._parts.telemetry.emit("launch.no_effect", id=record.id, launch=record.launch, reason=reason)
        wait = _UNTIL_SOMEBODY_CAN_READ_IT
        answer = self._parts.ledger.no_effect(record.id, record.claim, wait, reason)
        reach("launch.given_up")
        self.written(record, answer)

    def put_aside(self, record: Record, error: PermanentError) -> None:
        """A QUEUED record that must not be launched, or not by this worker."""
        claimed = self._claim(record)
        if claimed is not None:
            self.refuse_or_leave(claimed, error)

    def give_up(self, record: Record, reason: str) -> None:
        """A QUEUED record that breaks its workers: a dead letter, and FAILED. Its request is not read again."""
        self.bury(record.queue, record.request, reason)
        claimed = self._claim(record)
        if claimed is not None:
            self.refuse(claimed, reason)

    def written(self, record: Record, answer: Answer) -> None:
        """What the ledger answered to a write."""
        step = tell_step(self._parts.telemetry, "write", record.id, answer.word)
        if step is Step.LOST:
            self._parts.telemetry.emit("launch.lost_claim", id=record.id, launch=record.launch)
        elif step is Step.END and answer.record is not None:
            self.ended(answer.record)

    def ended(self, record: Record) -> None:
        """It has ended: tell, and announce the result."""
        tell_end(self._parts.telemetry, record)
        self._parts.publish(record)

    def _claim(self, record: Record) -> Record | None:
        """To say something of it: without arguments, for nothing is sent. None: it is not ours, or has ended."""
        offer = ClaimOffer(claim=self._parts.new_id(), worker=self._parts.worker, args="", target="")
        answer = self._parts.ledger.claim(record.id, offer)
        reach("launch.put_aside")
        step = tell_step(self._parts.telemetry, "claim", record.id, answer.word)
        if step is Step.END and answer.record is not None:
            self.ended(answer.record)
        return answer.record if step is Step.CALL else None


def tell_step(telemetry: Telemetry, operation: str, id: str, word: Word) -> Step:
    """What to do after a word of the ledger; told."""
    step = next_step(operation, word)
    telemetry.emit("decision.step", id=id, operation=operation, word=word.value, step=step.value)
    return step


def tell_end(telemetry: Telemetry, record: Record) -> None:
    """The last event of a request."""
    telemetry.emit(
        "request.ended",
        id=record.id,
        state=record.state.value,
        exit_code="-" if record.exit_code is None else record.exit_code,
        attempts=record.attempts,
        reason=record.reason,
    )


def too_late(request: TaskRequest, nonce: str) -> Record:
    """The result of a request that no record is made of any more."""
    return Record(
        id=request.id,
        nonce=nonce,
        queue=request.queue,
        owner=request.owner,
        state=State.EXPIRED,
        reason="it arrived after its accept_until; submit it again",
    )
