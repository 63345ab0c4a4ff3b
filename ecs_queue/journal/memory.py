"""A journal in memory: the events of a file, or what a test says."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from ecs_queue.journal.base import JournalEvent, seq_sort_key


class MemoryJournal:
    """A `JournalReader` over events that are all there already: `tail` never waits."""

    def __init__(self, events: Iterable[JournalEvent]) -> None:
        self._events = sorted(events, key=lambda event: seq_sort_key(event.seq))
        self._by_id: defaultdict[str, list[JournalEvent]] = defaultdict(list)
        for event in self._events:
            self._by_id[event.id].append(event)

    def request_events(self, id: str, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """See `JournalReader.events`."""
        return _within(sort_by_time(self._by_id.get(id, ())), since, until)

    def all_events(self, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """See `JournalReader.all`."""
        return _within(self._events, since, until)

    def tail(self, after_seq: str, block_seconds: float) -> Iterator[JournalEvent]:
        """See `JournalReader.tail`."""
        del block_seconds
        after = seq_sort_key(after_seq or self.last_seq())
        return (event for event in self._events if seq_sort_key(event.seq) > after)

    def last_seq(self) -> str:
        """See `JournalReader.last_seq`."""
        return self._events[-1].seq if self._events else ""

    def request_envelope(self, id: str) -> bytes | None:
        """See `JournalReader.request`."""
        return newest_envelope(self.request_events(id))

    def close(self) -> None:
        """See `JournalReader.close`."""


def sort_by_time(events: Iterable[JournalEvent]) -> Sequence[JournalEvent]:
    """The events of one request: several processes wrote them, so the order in the journal is only nearly theirs."""
    return sorted(events, key=operator.attrgetter("at"))  # stable: what one process wrote keeps its order


def newest_envelope(events: Iterable[JournalEvent]) -> bytes | None:
    """The newest envelope among the events, as JSON."""
    found = None
    for event in events:
        if event.name == "request.submitted" and event.data.get("envelope") is not None:
            found = event.data["envelope"]
    return None if found is None else msgspec.json.encode(found)


def _within(events: Iterable[JournalEvent], since: float | None, until: float | None) -> Iterator[JournalEvent]:
    for event in events:
        if (since is None or event.at >= since) and (until is None or event.at <= until):
            yield event
