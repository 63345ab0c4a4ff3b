"""The counts of the last hour: each event in its minute, once, however the journal is read."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from ecs_queue.journal.last_hour import (
    MINUTE,
    MINUTES,
    CountedData,
    ElementSummary,
    EventSummary,
    HourCounter,
    HourCounts,
    MinuteCounts,
)

NOW = 1_800_000_030.0  # half a minute after the full minute 30,000,000
MINUTE_NOW = 30_000_000


def element(at: float, *events: EventSummary, size: int = 100, unverified: int = 0) -> ElementSummary:
    return ElementSummary(f"{int(at * 1000)}-0", size, events, unverified)


def submitted(at: float) -> EventSummary:
    return EventSummary(at, "request.submitted")


def launched(at: float, queued_at: object) -> EventSummary:
    return EventSummary(at, "launch.started", CountedData(queued_at=queued_at))


def ended(at: float, state: str) -> EventSummary:
    return EventSummary(at, "request.ended", CountedData(state=state))


def count(elements: Sequence[ElementSummary], now: float = NOW, max_bytes: int = 10**9) -> HourCounts:
    return HourCounter(max_bytes).update(reversed(elements), now)


def minute(counts: HourCounts, ago: int) -> MinuteCounts:
    found = counts.minutes[-1 - ago]
    assert found is not None
    return found


def submissions(counts: HourCounts) -> list[int | None]:
    return [None if each is None else each.submitted for each in counts.minutes]


def test_each_event_counts_in_its_minute() -> None:
    at = NOW - 2 * MINUTE
    assigned = EventSummary(at, "launch.assigned", CountedData(queued_at=at - 7.5))
    events = (submitted(at), launched(at, at - 2.5), assigned, ended(at, "SUCCESS"), ended(at, "EXPIRED"))
    counts = count([element(at, *events), element(NOW, ended(NOW, "FAILED"))])
    assert minute(counts, 2) == MinuteCounts(submitted=1, launched=2, succeeded=1, failed=1, waits=[2.5, 7.5])
    assert minute(counts, 1) == MinuteCounts()
    assert minute(counts, 0) == MinuteCounts(failed=1)
    assert counts.first_minute + MINUTES - 1 == MINUTE_NOW
    assert len(counts.minutes) == MINUTES


def test_an_empty_journal_has_an_hour_without_events() -> None:
    assert submissions(count([])) == [0] * MINUTES


def test_the_counts_begin_where_the_journal_begins() -> None:
    counts = count([element(NOW - 3 * MINUTE, submitted(NOW - 3 * MINUTE))])
    assert submissions(counts) == [None] * (MINUTES - 4) + [1, 0, 0, 0]


def test_events_that_were_imported_count_from_the_first_one_on() -> None:
    counts = count([element(NOW - MINUTE, submitted(NOW - 3 * MINUTE), submitted(NOW - MINUTE))])
    assert submissions(counts) == [None] * (MINUTES - 4) + [1, 0, 1, 0]


def test_no_more_is_read_than_an_hour() -> None:
    taken = []

    def elements() -> Iterator[ElementSummary]:
        for ago in range(10 * MINUTES):
            taken.append(ago)
            yield element(NOW - ago * MINUTE, submitted(NOW - ago * MINUTE))

    counts = HourCounter().update(elements(), NOW)
    assert submissions(counts) == [1] * MINUTES
    assert max(taken) <= MINUTES + 2


def test_of_a_large_journal_the_newest_bytes_are_counted_and_no_minute_in_part() -> None:
    elements = [element(NOW - ago * MINUTE, submitted(NOW - ago * MINUTE), size=1000) for ago in range(30)]
    counts = count(elements[::-1], max_bytes=5000)
    assert submissions(counts) == [None] * (MINUTES - 4) + [1] * 4  # the fifth minute is cut


def test_a_later_update_reads_only_what_is_new() -> None:
    counter = HourCounter()
    first = element(NOW, submitted(NOW))
    counter.update([first], NOW)
    later = NOW + MINUTE

    def elements() -> Iterator[ElementSummary]:
        yield element(later, submitted(later), submitted(NOW))
        yield first
        raise AssertionError("it reads on behind what it has counted")

    counts = counter.update(elements(), later)
    assert (minute(counts, 1).submitted, minute(counts, 0).submitted) == (2, 1)


def test_counts_begin_anew_when_more_is_new_than_is_read() -> None:
    counter = HourCounter(max_bytes=150)
    counter.update([element(NOW - 5 * MINUTE, submitted(NOW - 5 * MINUTE))], NOW)
    new = [element(NOW - ago * MINUTE, submitted(NOW - ago * MINUTE)) for ago in (4, 3, 2, 1)]
    counts = counter.update([*new[::-1], element(NOW - 5 * MINUTE, submitted(NOW - 5 * MINUTE))], NOW)
    assert submissions(counts) == [None] * (MINUTES - 2) + [1, 0]


def test_events_of_the_next_minute_count_once_it_has_come() -> None:
    counter = HourCounter()
    only = element(NOW + 31, submitted(NOW + 31))
    assert minute(counter.update([only], NOW), 0).submitted == 0
    assert minute(counter.update([only], NOW + MINUTE), 0).submitted == 1


def test_returned_counts_stay_as_they_are() -> None:
    counter = HourCounter()
    first = element(NOW, submitted(NOW), launched(NOW, NOW - 1))
    before = counter.update([first], NOW)
    counter.update([element(NOW + 1, submitted(NOW), launched(NOW, NOW - 1)), first], NOW)
    assert minute(before, 0) == MinuteCounts(submitted=1, launched=1, waits=[1.0])


@pytest.mark.parametrize("queued_at", [None, "yesterday", 0, -1.0, 10**400, [1], {"a": 1}], ids=repr)
def test_a_launch_without_a_time_that_can_be_used_counts_without_a_wait(queued_at: object) -> None:
    counts = minute(count([element(NOW, launched(NOW, queued_at))]), 0)
    assert (counts.launched, counts.waits) == (1, [])


def test_a_wait_is_not_negative_and_their_number_is_bounded() -> None:
    assert minute(count([element(NOW, launched(NOW, NOW + 5))]), 0).waits == [0.0]
    many = [element(NOW, *[launched(NOW, NOW - 1)] * 800), element(NOW, *[launched(NOW, NOW - 1)] * 800)]
    counts = minute(count(many), 0)
    assert (counts.launched, len(counts.waits)) == (1600, 1000)


def test_unverified_events_are_named_for_an_hour() -> None:
    counter = HourCounter()
    only = element(NOW, unverified=3)
    assert counter.update([only], NOW).unverified == 3
    assert counter.update([only], NOW + 61 * MINUTE).unverified == 0


def test_an_event_with_a_time_of_another_age_takes_no_room() -> None:
    counter = HourCounter()
    counts = counter.update([element(NOW, *[submitted(at * 1e9) for at in range(1000)])], NOW)
    assert submissions(counts) == [None] * (MINUTES - 1) + [0]
    assert counter._part._minutes == {}


@pytest.mark.parametrize("seed", range(5))
def test_however_often_it_is_read_the_counts_are_the_same(seed: int) -> None:
    rng = random.Random(seed)
    times = sorted(NOW + rng.uniform(0, 90 * MINUTE) for _ in range(400))
    elements = [
        ElementSummary(f"{int(at * 1000)}-{n}", 100, (submitted(at - rng.random()),)) for n, at in enumerate(times)
    ]
    counter, now, end = HourCounter(), NOW, NOW + 90 * MINUTE
    while now < end:
        now = min(end, now + rng.uniform(0, 20 * MINUTE))
        newest_first = [each for each in elements if each.appended_at <= now][::-1]
        counts = counter.update(newest_first, now)
    assert counts == HourCounter().update(newest_first, now)
    assert sum(number or 0 for number in submissions(counts)) > 200
