"""A journal store in memory that fails on request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec

from ecs_queue.errors import JournalUnavailable
from ecs_queue.journal.base import EventBatch


class FakeJournalStore:
    """A `JournalStore` in memory.

    Attributes:
        failure: makes the error that every append raises; None appends.
        is_unavailable: every call raises JournalUnavailable.
        loses_answers: appends take effect and raise JournalUnavailable.
        append_count: number of calls of `append`.
        appended: set when a batch is stored.
    """

    def __init__(self, clock: Callable[[], float], failure: Callable[[], Exception] | None = None) -> None:
        self._clock = clock
        self.failure = failure
        self.batches: list[EventBatch] = []
        self.append_count = 0
        self.appended = threading.Event()
        self.is_unavailable = self.loses_answers = False

    def now(self) -> float:
        if self.is_unavailable:
            raise JournalUnavailable("unreachable")
        return self._clock()

    def append(self, batch: EventBatch) -> float:
        self.append_count += 1
        if self.failure is not None:
            raise self.failure()
        now = self.now()
        if (batch.writer_id, batch.batch_number) not in {(b.writer_id, b.batch_number) for b in self.batches}:
            self.batches.append(batch)
            self.appended.set()
        if self.loses_answers:
            raise JournalUnavailable("the response was lost")
        return now

    def events(self) -> list[dict[str, Any]]:
        return [event for batch in self.batches for event in msgspec.json.decode(batch.body)]

    def event_names(self, record_id: str | None = None) -> list[str]:
        """Return the names of all events, or of one request's."""
        return [event["name"] for event in self.events() if record_id in (None, event["id"])]

    def close(self) -> None:
        pass
