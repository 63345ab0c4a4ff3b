"""Counts what was submitted, launched and ended in each minute of the last hour, from the newest part of the journal.

The first update reads the journal from its end back for an hour, or for `MAX_BYTES` if that is less: then the counts
begin later. Each further one reads what was written since. Pure: the elements and `now` are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ecs_queue.journal.base import MAX_TIME, seq_sort_key

#: Seconds of a minute, and the number of minutes that are counted.
MINUTE, MINUTES = 60, 60
#: The journal's bytes that one update reads at most, as they are stored: some seconds of a processor.
MAX_BYTES = 32 * 1024 * 1024
#: Waits of one minute that are kept for its median; of more launches the first ones that are read count.
_MAX_WAITS = 1000
#: Minutes after the present one that are kept: events are written while the journal is read, and clocks differ.
_MINUTES_AHEAD = 2
#: For how long after an event it may be appended, and count in its minute: clocks differ, and journals fail. Seconds.
_MAX_DELAY = 60.0
_LAUNCHES = frozenset({"launch.started", "launch.assigned"})
#: The events that are counted.
COUNTED = frozenset({"request.submitted", "request.ended", *_LAUNCHES})


class CountedData(msgspec.Struct, frozen=True, gc=False):
    """Members of an event's data, where it has them."""

    state: Any = ""
    queued_at: Any = 0.0


class EventSummary(msgspec.Struct, frozen=True, gc=False):
    """What is counted of an event."""

    at: float
    name: str
    data: CountedData = CountedData()


class ElementSummary(msgspec.Struct, frozen=True):
    """An element of the journal.

    Attributes:
        element: its id, which begins with the server's milliseconds when it was appended.
        size: its bytes as it is stored.
        events: those of `COUNTED`, without unverified ones.
        unverified: the number of events that no signing key verifies.
    """

    element: str
    size: int
    events: Sequence[EventSummary]
    unverified: int = 0

    @property
    def appended_at(self) -> float:
        """When it was appended, in seconds since the epoch."""
        return seq_sort_key(self.element)[0] / 1000


class MinuteCounts(msgspec.Struct):
    """One minute. `waits` are seconds from the submission, a delay's end or the attempt before to the launch."""

    submitted: int = 0
    launched: int = 0
    succeeded: int = 0
    failed: int = 0
    waits: list[float] = []

    def add(self, event: EventSummary) -> None:
        """Count an event of `COUNTED`."""
        if event.name == "request.submitted":
            self.submitted += 1
        elif event.name in _LAUNCHES:
            self.launched += 1
            since = event.data.queued_at  # events of an earlier version have none
            if isinstance(since, int | float) and 0 < since <= MAX_TIME and len(self.waits) < _MAX_WAITS:
                self.waits.append(max(0.0, event.at - since))
        elif event.data.state == "SUCCESS":
            self.succeeded += 1
        else:
            self.failed += 1

    def add_all(self, other: MinuteCounts) -> None:
        """Add another part of the same minute."""
        self.submitted += other.submitted
        self.launched += other.launched
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.waits = [*self.waits, *other.waits][:_MAX_WAITS]


class HourCounts(msgspec.Struct, frozen=True):
    """The minutes of the last hour.

    Attributes:
        first_minute: the number of the first of `minutes`, in minutes since the epoch.
        minutes: one for each minute; None for one before the counts begin. The last one is not over.
        unverified: the number of events that are not counted, as no signing key verifies them.
    """

    first_minute: int
    minutes: Sequence[MinuteCounts | None]
    unverified: int = 0


class HourCounter:
    """Keeps the counts from one update to the next. For one thread at a time."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """Read about `max_bytes` in one update at most."""
        self._max_bytes = max_bytes
        self._newest = ""
        self._part = _Part(0, 0)
        self._first_complete = 0

    def update(self, newest_first: Iterable[ElementSummary], now: float) -> HourCounts:
        """Count the elements that are new, and return the counts.

        Args:
            newest_first: the elements of the journal; no more are taken than are needed.
            now: the time of the journal's server, in seconds since the epoch.
        """
        last = int(now // MINUTE)
        first = last - MINUTES + 1
        part, size, newest = _Part(first, last + _MINUTES_AHEAD), 0, self._newest
        first_complete = first
        for number, element in enumerate(newest_first):
            if self._newest and seq_sort_key(element.element) <= seq_sort_key(self._newest):
                part.add_part(self._part)
                first_complete = self._first_complete
                break
            newest = newest if number else element.element
            part.add(element)
            size += element.size
            minute = min(last, int(element.appended_at // MINUTE))
            if element.appended_at < first * MINUTE - _MAX_DELAY:
                first_complete = first
                break
            if size >= self._max_bytes:
                first_complete = min(last, minute + 1)  # of this one a part was read
                break
            first_complete = min(minute, part.oldest_minute())  # unless there are more, the journal begins here
        self._newest, self._part, self._first_complete = newest, part, first_complete
        return part.counts(first, last, first_complete)


class _Part:
    """The counts of the minutes from `first` to `last`; what is of other ones is left out."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._minutes: dict[int, MinuteCounts] = {}
        self._unverified: dict[int, int] = {}

    def add(self, element: ElementSummary) -> None:
        for event in element.events:
            number = event.at // MINUTE
            if self._first <= number <= self._last:
                self._minutes.setdefault(int(number), MinuteCounts()).add(event)
        if element.unverified:
            self._add_unverified(int(element.appended_at // MINUTE), element.unverified)

    def add_part(self, other: _Part) -> None:
        for number, counts in other._minutes.items():
            if self._first <= number:
                self._minutes.setdefault(number, MinuteCounts()).add_all(counts)
        for number, unverified in other._unverified.items():
            self._add_unverified(number, unverified)

    def oldest_minute(self) -> int:
        """The first minute with an event: imported ones are older than their elements."""
        return min(self._minutes, default=self._last)

    def counts(self, first: int, last: int, first_complete: int) -> HourCounts:
        known = range(max(first, first_complete), last + 1)
        minutes = [self._minutes.get(n, MinuteCounts()) if n in known else None for n in range(first, last + 1)]
        return HourCounts(first, minutes, sum(self._unverified.values()))

    def _add_unverified(self, number: int, unverified: int) -> None:
        if self._first <= number <= self._last:
            self._unverified[number] = self._unverified.get(number, 0) + unverified
