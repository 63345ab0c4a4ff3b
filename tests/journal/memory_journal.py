"""A journal in memory, for tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from ecs_queue.journal.base import JournalEvent, seq_sort_key, sort_by_time


class MemoryJournal:
    """A `JournalReader` over a fixed list of events: `tail` never waits."""

    def __init__(self, events: Iterable[JournalEvent]) -> None:
        self._events = sorted(events, key=lambda event: seq_sort_key(event.seq))
        self._by_id: defaultdict[str, list[JournalEvent]] = defaultdict(list)
        for event in self._events:
            self._by_id[event.id].append(event)

    def request_events(self, id: str, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """See `JournalReader.request_events`."""
        return _within(sort_by_time(self._by_id.get(id, ())), since, until)

    def all_events(self, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """See `JournalReader.all_events`."""
        return _within(self._events, since, until)

    def tail(self, after_seq: str, block_seconds: float) -> Iterator[JournalEvent]:
        """See `JournalReader.tail`."""
        del block_seconds
        after = seq_sort_key(after_seq or self.last_seq())
        return (event for event in self._events if seq_sort_key(event.seq) > after)

    def last_seq(self) -> str:
        """See `JournalReader.last_seq`."""
        return self._events[-1].seq if self._events else ""

    def close(self) -> None:
        """See `JournalReader.close`."""


def _within(events: Iterable[JournalEvent], since: float | None, until: float | None) -> Iterator[JournalEvent]:
    for event in events:
        if (since is None or event.at >= since) and (until is None or event.at <= until):
            yield event
