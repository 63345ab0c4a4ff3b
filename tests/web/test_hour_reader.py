"""The counts of the last hour are read once for many pages, and no page waits long for them."""

from __future__ import annotations

import threading

from ecs_queue.errors import JournalUnavailable
from ecs_queue.journal.last_hour import HourCounter, HourCounts, MinuteCounts
from ecs_queue.web.hour_reader import HourReader
from tests.fake_clock import FakeClock
from tests.wait import wait_until

COUNTS = HourCounts(1, [MinuteCounts(submitted=1)])


def test_one_read_serves_the_pages_of_some_seconds() -> None:
    clock, counters = FakeClock(), list[HourCounter]()

    def read(counter: HourCounter) -> HourCounts:
        counters.append(counter)
        return COUNTS

    reader = HourReader(read, clock, max_wait=60)
    assert [reader.get(), reader.get()] == [COUNTS, COUNTS]
    assert len(counters) == 1
    clock.advance(6)
    assert reader.get() == COUNTS
    assert len(counters) == 2
    assert counters[0] is counters[1]


def test_a_page_does_not_wait_for_a_long_read_which_serves_the_next_one() -> None:
    release = threading.Event()

    def read(counter: HourCounter) -> HourCounts:
        assert release.wait(60)
        return COUNTS

    reader = HourReader(read, FakeClock(), max_wait=0.01)
    assert "being read" in str(reader.get())
    release.set()
    wait_until(lambda: reader.get() == COUNTS, "the read has ended")


def test_a_failed_read_says_why_and_is_tried_again_later() -> None:
    clock, failures = FakeClock(), [JournalUnavailable("the journal failed: no connection")]

    def read(counter: HourCounter) -> HourCounts | str:
        if failures:
            raise failures.pop()
        return COUNTS

    reader = HourReader(read, clock, max_wait=60)
    assert reader.get() == "the journal failed: no connection"
    assert reader.get() == "the journal failed: no connection"
    clock.advance(6)
    assert reader.get() == COUNTS
