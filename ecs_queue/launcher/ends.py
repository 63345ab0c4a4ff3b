"""How the end of a request is told."""

from __future__ import annotations

from ecs_queue.core.envelope import TaskRequest
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.telemetry import Telemetry


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
