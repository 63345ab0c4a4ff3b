"""The bounds of what is written, so that a reader with the same configuration reads it."""

from __future__ import annotations

import pytest

from ecs_queue.journal import JournalRecorder
from ecs_queue.journal.encoder import BATCH_BYTES, EventEncoder
from ecs_queue.telemetry import Telemetry
from tests.fake_clock import FakeClock
from tests.journal.fake_journal_store import FakeJournalStore

LIMIT = 4 * BATCH_BYTES


def test_an_event_that_no_reader_would_accept_is_refused() -> None:
    encoder = EventEncoder(max_element_bytes=LIMIT)

    encoder.encode(1.0, "health.degraded", {"queue": "q", "reason": "x" * (LIMIT - BATCH_BYTES - 200)})
    with pytest.raises(ValueError, match="larger than journal_element_bytes allows"):
        encoder.encode(1.0, "health.degraded", {"queue": "q", "reason": "x" * (LIMIT - BATCH_BYTES)})


def test_no_batch_is_larger_than_an_element_may_be() -> None:
    store, telemetry, clock = FakeJournalStore(FakeClock(1.0)), Telemetry(), FakeClock(1.0)
    recorder = JournalRecorder(store, telemetry, encoder=EventEncoder(max_element_bytes=LIMIT), clock=clock)
    for size in (10, LIMIT, BATCH_BYTES - 500, LIMIT - BATCH_BYTES - 200, 10):
        telemetry.emit("health.degraded", queue="q", reason="x" * size)
    for _ in range(2):  # the second time with the event that reports what was dropped
        recorder.write_pending()

    assert all(len(batch.body) <= LIMIT for batch in store.batches)
    assert store.event_names() == [*["health.degraded"] * 4, "journal.events_dropped"]
