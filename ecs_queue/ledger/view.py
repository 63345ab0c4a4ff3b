"""How the in-memory ledger looks at its records."""

from __future__ import annotations

import msgspec

from ecs_queue.ledger.base import WorkerInfo
from ecs_queue.protocol.poison import claimed_at
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.states import State


def copy_record(record: Record) -> Record:
    """One that no caller can change behind the ledger's back."""
    return msgspec.structs.replace(record)


def without_request(record: Record) -> Record:
    """What an answer shows of it where the caller has no use for the payload."""
    return msgspec.structs.replace(record, request=b"")


def index_of(record: Record) -> str:
    """The index a record stands in (ledger/base.py)."""
    if record.state is State.QUEUED:
        return f"{'retry' if record.not_before else 'unclaimed'}:{record.queue}"
    return "" if record.is_terminal else "due"


def is_worker_alive(
    record: Record, last_heartbeat: tuple[WorkerInfo, float] | None, now: float, settings: ProtocolSettings
) -> bool:
    """Whether its holder, not a later worker of that name, was heard of lately. `said`: its last word, until when."""
    return (
        last_heartbeat is not None
        and last_heartbeat[1] > now
        and last_heartbeat[0].started_at <= claimed_at(record, settings)
    )
