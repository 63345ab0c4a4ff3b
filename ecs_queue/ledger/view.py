"""How the in-memory ledger looks at its records."""

from __future__ import annotations

import msgspec

from ecs_queue.core.breaking import held_at
from ecs_queue.core.protocol import Rules
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.ledger.base import WorkerInfo


def copy_of(record: Record) -> Record:
    """One that no caller can change behind the ledger's back."""
    return msgspec.structs.replace(record)


def shown_of(record: Record) -> Record:
    """What an answer shows of it where the caller has no use for the payload."""
    return msgspec.structs.replace(record, request=b"")


def shelf_of(record: Record) -> str:
    """The index a record stands in (ledger/base.py)."""
    if record.state is State.QUEUED:
        return f"{'retry' if record.not_before else 'silent'}:{record.queue}"
    return "" if record.ended else "due"


def lives(record: Record, said: tuple[WorkerInfo, float] | None, now: float, rules: Rules) -> bool:
    """Whether its holder, not a later worker of that name, was heard of lately. `said`: its last word, until when."""
    return said is not None and said[1] > now and said[0].started_at <= held_at(record, rules)
