"""The recorder: cheap, batched, bounded, and harmless when the journal cannot be written."""

from __future__ import annotations

import threading
import time

import pytest

from ecs_queue.journal import JournalRecorder
from ecs_queue.journal import recorder as journal_recorder
from ecs_queue.journal.base import EventBatch
from ecs_queue.telemetry import Telemetry
from tests.fake_clock import FakeClock
from tests.journal.fake_journal_store import FakeJournalStore

CLOCK_OFFSET = 1000.0


class RecorderHarness:
    """A recorder that the test drives, unless it starts it."""

    def __init__(self, max_buffered: int = 100) -> None:
        self.clock = FakeClock(50.0)
        self.store = FakeJournalStore(self.clock)
        self.telemetry = Telemetry()
        self.recorder = JournalRecorder(
            self.store,
            self.telemetry,
            "w",
            max_buffered=max_buffered,
            clock=lambda: self.clock() + CLOCK_OFFSET,
        )

    def emit(self, record_id: str = "a") -> None:
        self.telemetry.emit("request.received", id=record_id, queue="q")


@pytest.fixture
def harness() -> RecorderHarness:
    return RecorderHarness()


def test_an_event_is_written_with_name_id_and_fields(harness: RecorderHarness) -> None:
    harness.emit("a")
    harness.emit("b")
    harness.recorder.write_pending()

    (batch,) = harness.store.batches
    assert (batch.worker, batch.event_count, batch.request_ids) == ("w", 2, ["a", "b"])
    first = {"v": 1, "at": 50.0, "name": "request.received", "id": "a", "data": {"queue": "q"}}
    assert harness.store.events() == [first, {**first, "id": "b"}]


def test_without_events_nothing_is_written(harness: RecorderHarness) -> None:
    harness.recorder.write_pending()

    assert harness.store.batches == []


def test_times_are_the_servers_and_never_decrease(harness: RecorderHarness) -> None:
    harness.emit()
    harness.recorder.write_pending()
    harness.clock.now += 5
    harness.emit()
    harness.recorder.write_pending()
    harness.clock.now -= 3  # another server after a fail-over, whose clock is behind
    harness.emit()
    harness.recorder.write_pending()

    assert [event["at"] for event in harness.store.events()] == [50.0, 55.0, 55.0]


def test_many_events_are_several_batches_in_order(harness: RecorderHarness) -> None:
    harness = RecorderHarness(max_buffered=2000)
    for number in range(1201):
        harness.emit(str(number))
    harness.recorder.write_pending()

    assert [batch.event_count for batch in harness.store.batches] == [500, 500, 201]
    assert [batch.batch_number for batch in harness.store.batches] == [1, 2, 3]
    assert [event["id"] for event in harness.store.events()] == [str(number) for number in range(1201)]


def test_a_batch_is_bounded_in_bytes_too(harness: RecorderHarness) -> None:
    for _ in range(8):
        harness.telemetry.emit("worker.started", worker="w", queues="q" * 100_000)
    harness.recorder.write_pending()

    assert [batch.event_count for batch in harness.store.batches] == [3, 3, 2]


def test_events_that_could_not_be_written_are_written_later_in_order(harness: RecorderHarness) -> None:
    harness.emit("a")
    harness.store.is_unavailable = True
    rest = harness.recorder.write_pending()
    harness.emit("b")
    harness.recorder.write_pending()
    harness.store.is_unavailable = False
    harness.recorder.write_pending()

    assert rest > 0.1
    assert [event["id"] for event in harness.store.events() if event["name"] == "request.received"] == ["a", "b"]


def test_a_repeated_append_after_a_lost_response_is_stored_once(harness: RecorderHarness) -> None:
    harness.emit()
    harness.store.loses_answers = True
    harness.recorder.write_pending()
    harness.store.loses_answers = False
    harness.recorder.write_pending()

    assert harness.store.event_names() == ["request.received", "journal.write_failed"]


def test_an_error_is_reported_once_until_it_is_over(harness: RecorderHarness, caplog: pytest.LogCaptureFixture) -> None:
    harness.store.is_unavailable = True
    for _ in range(5):
        harness.recorder.write_pending()

    assert harness.telemetry.count("journal.write_failed") == 1
    assert "the journal cannot be written now: unreachable" in caplog.text


def test_events_beyond_the_buffer_are_dropped_and_counted_in_the_journal() -> None:
    harness = RecorderHarness(max_buffered=10)
    harness.store.is_unavailable = True
    harness.recorder.write_pending()
    for number in range(25):
        harness.emit(str(number))
    harness.store.is_unavailable = False
    harness.recorder.write_pending()
    harness.recorder.write_pending()

    events = harness.store.events()
    assert [event["id"] for event in events if event["name"] == "request.received"] == [str(n) for n in range(9)]
    (dropped,) = [event for event in events if event["name"] == "journal.events_dropped"]
    assert dropped["data"]["dropped"] == 16
    assert harness.telemetry.count("journal.events_dropped") == 1


def test_an_event_that_cannot_be_encoded_is_dropped_alone_without_its_message(
    harness: RecorderHarness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.emit("a")
    harness.telemetry.emit("launch.no_effect", id="b", launch=1, reason="hunter2 \ud800")
    harness.emit("c")
    caplog.clear()
    harness.recorder.write_pending()

    assert [event["id"] for event in harness.store.events()] == ["a", "c"]
    assert "events are missing in the journal (1): launch.no_effect: UnicodeEncodeError" in caplog.text
    assert "hunter2" not in caplog.text


def test_recording_never_raises_and_never_waits(harness: RecorderHarness) -> None:
    """Without a writer, 50,000 events cost nothing but the buffer."""
    harness.store.is_unavailable = True
    for number in range(50_000):
        harness.recorder.record_event("request.received", {"id": str(number), "queue": "q"})

    assert harness.store.batches == []


def test_the_thread_writes_and_the_stop_writes_the_rest(harness: RecorderHarness) -> None:
    harness.recorder.start()
    harness.recorder.start()
    harness.emit("a")
    assert harness.store.appended.wait(10)
    harness.emit("b")
    harness.recorder.stop()

    assert harness.recorder.join(10)
    assert [event["id"] for event in harness.store.events()] == ["a", "b"]


def test_events_that_the_stop_cannot_write_are_reported(
    harness: RecorderHarness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.store.is_unavailable = True
    harness.emit("a")
    harness.recorder.start()
    harness.recorder.stop()

    assert harness.recorder.join(10)
    assert "events are missing in the journal (2): the journal could not be written before the end" in caplog.text


def test_join_of_a_recorder_that_never_started_returns(harness: RecorderHarness) -> None:
    harness.recorder.stop()

    assert harness.recorder.join(0.0)


def test_an_unexpected_error_does_not_end_the_recorder(
    harness: RecorderHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def broken(batch: EventBatch) -> float:
        failed.set()
        raise ZeroDivisionError

    monkeypatch.setattr(harness.store, "append", broken)
    harness.emit("a")
    harness.recorder.start()
    assert failed.wait(10)
    monkeypatch.undo()
    harness.emit("b")
    harness.recorder.stop()

    assert harness.recorder.join(10)
    assert [event["id"] for event in harness.store.events() if event["id"]] == ["b"]
    assert harness.telemetry.count("journal.events_dropped") == 1


def test_nothing_is_written_while_writes_are_paused(harness: RecorderHarness) -> None:
    writer = threading.Thread(target=harness.recorder.write_pending)
    harness.emit()
    with harness.recorder.pause_writes():
        writer.start()
        assert not harness.store.appended.wait(0.1)

    writer.join(30)
    assert harness.store.event_names() == ["request.received"]


def test_the_writer_sleeps_for_long_enough_that_a_thread_which_waits_for_the_gil_gets_it(
    harness: RecorderHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    harness.emit()
    harness.emit()
    harness.recorder.write_pending()
    assert len(slept) == 2
    assert min(slept) > 0


def test_a_pause_is_bounded_in_time(harness: RecorderHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_recorder, "_MAX_PAUSE_SECONDS", 0.05)
    recorder = JournalRecorder(harness.store, harness.telemetry)  # whose clock goes on
    harness.emit()
    with recorder.pause_writes():
        recorder.write_pending()

    assert harness.store.event_names() == ["request.received"]


def test_a_pause_is_bounded_in_buffered_events(harness: RecorderHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_recorder, "_MAX_PAUSE_SECONDS", 1000.0)
    monkeypatch.setattr(journal_recorder, "_PAUSE_BELOW", 0)
    harness.emit()
    with harness.recorder.pause_writes():
        harness.recorder.write_pending()

    assert harness.store.event_names() == ["request.received"]
