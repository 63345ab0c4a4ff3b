"""What the page shows as the command line does. The command hands its own functions in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ecs_queue.client.client import EcsQueue
from ecs_queue.journal import JournalEvent
from ecs_queue.ledger.base import DeadLetter
from ecs_queue.protocol.record import Record


@dataclass(frozen=True, repr=False)
class Presentation:
    """Functions of the command line.

    Attributes:
        duration: Formats seconds.
        timestamp: Formats seconds since the epoch, with milliseconds.
        record_fields: The facts of a record as names and values, without command and environment; the arguments are
            the record, the ledger's clock and the paused queues.
        event_fields: One line of the facts of an event.
        last_lines: The newest lines of a request's last container, up to a number; or why they cannot be read.
        dead_letter_id: The id in a dead letter's message.
    """

    duration: Callable[[float], str]
    timestamp: Callable[[float], str]
    record_fields: Callable[[Record, float, Mapping[str, float]], list[tuple[str, str]]]
    event_fields: Callable[[JournalEvent], str]
    last_lines: Callable[[EcsQueue, Record, int], Sequence[str] | str]
    dead_letter_id: Callable[[DeadLetter], str | None]
