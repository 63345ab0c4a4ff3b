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
        record_fields: The facts of a record as names and values, without command and environment; the arguments beside
            it are the ledger's clock and the paused queues.
        event_fields: One line of the facts of an event.
        last_lines: The newest lines of a request's last container, up to a number; or why they cannot be read.
        argument_diff: The run_task arguments of a request's newest launch compared with those of a launch now, as the
            lines of a unified diff, without what journal_redaction hides; or why there is nothing to compare.
        dead_letter_id: The id in a dead letter's message.
        retry_id: The id that a retry of a request has.
    """

    duration: Callable[[float], str]
    timestamp: Callable[[float], str]
    record_fields: Callable[[EcsQueue, Record, float, Mapping[str, float]], list[tuple[str, str]]]
    event_fields: Callable[[JournalEvent], str]
    last_lines: Callable[[EcsQueue, Record, int], Sequence[str] | str]
    argument_diff: Callable[[EcsQueue, str], Sequence[str] | str]
    dead_letter_id: Callable[[DeadLetter], str | None]
    retry_id: Callable[[Record], str]
