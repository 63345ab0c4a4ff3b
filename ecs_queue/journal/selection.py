"""Selects events of a journal: the newest ones, and those that follow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ecs_queue.journal.base import JournalEvent, JournalReader, seq_sort_key

if TYPE_CHECKING:
    from ecs_queue.journal.redis import RedisJournal

#: How long one read of `follow_events` blocks, and so how soon it notices that it is to end. Seconds.
_READ_TIMEOUT_SECONDS = 1.0
#: Where `follow_events` starts in an empty journal.
_FIRST_POSITION = "0-0.0"


class EventFilter:
    """Selects events. An empty member selects all."""

    def __init__(self, ids: Collection[str] = (), names: Collection[str] = (), worker: str | None = None) -> None:
        """Select the events of these requests, with one of these names (* is any text), of this worker."""
        self.ids = tuple(dict.fromkeys(ids))
        self._names, self._worker = tuple(names), worker

    def matches(self, event: JournalEvent) -> bool:
        """Return whether the event is selected."""
        return (
            (not self.ids or event.id in self.ids)
            and (not self._names or any(fnmatchcase(event.name, name) for name in self._names))
            and (self._worker is None or event.worker == self._worker)
        )


def select_events(
    reader: JournalReader, event_filter: EventFilter, since: float | None = None, until: float | None = None
) -> Iterator[JournalEvent]:
    """Yield the selected events of a time, in the order of their `seq`; of chosen requests one after the other.

    The cost of chosen requests depends on their own events, not on the length of the journal.
    """
    chosen = [reader.request_events(id, since, until) for id in event_filter.ids] or [reader.all_events(since, until)]
    return filter(event_filter.matches, itertools.chain.from_iterable(chosen))


def read_newest(reader: RedisJournal, event_filter: EventFilter, number: int, last: str) -> list[JournalEvent]:
    """Return the newest selected events up to the `seq` `last`, oldest first, reading pages from the end."""
    newest: list[JournalEvent] = []
    for page in reader.pages_newest_first():
        if len(newest) >= number:
            break
        newest = [*(e for e in page if event_filter.matches(e) and seq_sort_key(e.seq) <= seq_sort_key(last)), *newest]
    return newest[max(0, len(newest) - number) :]


def follow_events(
    reader: JournalReader, event_filter: EventFilter, after: str, is_over: Callable[[], bool] = lambda: False
) -> Iterator[JournalEvent]:
    """Yield the selected events after the `seq` `after`, as they are written, until `is_over()` holds."""
    newest = after or _FIRST_POSITION
    while not is_over():
        for event in reader.tail(newest, _READ_TIMEOUT_SECONDS):
            newest = event.seq
            if event_filter.matches(event):
                yield event
