"""The recorder: cheap to tell, batched, bounded, and harmless when the journal cannot be written."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest

from ecs_queue.errors import JournalUnavailable
from ecs_queue.journal import Recorder, record
from ecs_queue.journal.base import Batch
from ecs_queue.telemetry import Telemetry

AHEAD = 1000.0


class Store:
    """A `JournalStore` in memory. `broken`: every call fails; `deaf`: appends take effect, and fail then."""

    def __init__(self) -> None:
        self.time = 50.0
        self.batches: list[Batch] = []
        self.appended = threading.Event()
        self.broken = self.deaf = False

    def now(self) -> float:
        if self.broken:
            raise JournalUnavailable("it is away")
        return self.time

    def append(self, batch: Batch) -> float:
        now = self.now()
        if (batch.writer, batch.number) not in {(b.writer, b.number) for b in self.batches}:
            self.batches.append(batch)
            self.appended.set()
        if self.deaf:
            raise JournalUnavailable("nobody hears the answer")
        return now

    def events(self) -> list[dict[str, Any]]:
        return [event for batch in self.batches for event in msgspec.json.decode(batch.body)]

    def names(self) -> list[str]:
        return [event["name"] for event in self.events()]

    def close(self) -> None:
        pass


class Bench:
    """A recorder, driven by hand unless it is started."""

    def __init__(self, kept: int = 100) -> None:
        self.store = Store()
        self.telemetry = Telemetry()
        self.recorder = Recorder(self.store, self.telemetry, "w", kept=kept, clock=lambda: self.store.time + AHEAD)

    def tell(self, record_id: str = "a") -> None:
        self.telemetry.emit("request.received", id=record_id, queue="q")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_is_told_is_written_with_name_id_and_fields(bench: Bench) -> None:
    bench.tell("a")
    bench.tell("b")
    bench.recorder.step()

    (batch,) = bench.store.batches
    assert (batch.worker, batch.events, batch.ids) == ("w", 2, ["a", "b"])
    first = {"v": 1, "at": 50.0, "name": "request.received", "id": "a", "data": {"queue": "q"}}
    assert bench.store.events() == [first, {**first, "id": "b"}]


def test_nothing_told_nothing_written(bench: Bench) -> None:
    bench.recorder.step()

    assert bench.store.batches == []


def test_times_are_the_servers_and_never_go_back(bench: Bench) -> None:
    bench.tell()
    bench.recorder.step()
    bench.store.time += 5
    bench.tell()
    bench.recorder.step()
    bench.store.time -= 3  # another server after a fail-over, whose clock is behind
    bench.tell()
    bench.recorder.step()

    assert [event["at"] for event in bench.store.events()] == [50.0, 55.0, 55.0]


def test_many_events_are_several_batches_in_order(bench: Bench) -> None:
    bench = Bench(kept=2000)
    for number in range(1201):
        bench.tell(str(number))
    bench.recorder.step()

    assert [batch.events for batch in bench.store.batches] == [500, 500, 201]
    assert [batch.number for batch in bench.store.batches] == [1, 2, 3]
    assert [event["id"] for event in bench.store.events()] == [str(number) for number in range(1201)]


def test_a_batch_is_bounded_in_bytes_too(bench: Bench) -> None:
    for _ in range(8):
        bench.telemetry.emit("worker.started", worker="w", queues="q" * 100_000)
    bench.recorder.step()

    assert [batch.events for batch in bench.store.batches] == [3, 3, 2]


def test_what_could_not_be_written_is_written_later_in_order(bench: Bench) -> None:
    bench.tell("a")
    bench.store.broken = True
    rest = bench.recorder.step()
    bench.tell("b")
    bench.recorder.step()
    bench.store.broken = False
    bench.recorder.step()

    assert rest > 0.1
    assert [event["id"] for event in bench.store.events() if event["name"] == "request.received"] == ["a", "b"]


def test_an_append_whose_answer_is_lost_is_there_once(bench: Bench) -> None:
    bench.tell()
    bench.store.deaf = True
    bench.recorder.step()
    bench.store.deaf = False
    bench.recorder.step()

    assert bench.store.names() == ["request.received", "journal.trouble"]


def test_trouble_is_told_once_until_it_is_over(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.store.broken = True
    for _ in range(5):
        bench.recorder.step()

    assert bench.telemetry.count("journal.trouble") == 1
    assert "the journal is not written for now: it is away" in caplog.text


def test_beyond_the_buffer_events_are_dropped_and_the_journal_says_how_many() -> None:
    bench = Bench(kept=10)
    bench.store.broken = True
    bench.recorder.step()
    for number in range(25):
        bench.tell(str(number))
    bench.store.broken = False
    bench.recorder.step()
    bench.recorder.step()

    events = bench.store.events()
    assert [event["id"] for event in events if event["name"] == "request.received"] == [str(n) for n in range(9)]
    (dropped,) = [event for event in events if event["name"] == "journal.dropped"]
    assert dropped["data"]["dropped"] == 16
    assert bench.telemetry.count("journal.dropped") == 1


def test_what_has_no_json_is_dropped_alone_and_its_words_are_not_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.tell("a")
    bench.telemetry.emit("launch.no_effect", id="b", launch=1, reason="hunter2 \ud800")
    bench.tell("c")
    caplog.clear()
    bench.recorder.step()

    assert [event["id"] for event in bench.store.events()] == ["a", "c"]
    assert "1 events are not in the journal: launch.no_effect: UnicodeEncodeError" in caplog.text
    assert "hunter2" not in caplog.text


def test_telling_never_raises_and_never_waits(bench: Bench) -> None:
    """Nobody writes: 50,000 events cost their tellers nothing but the buffer."""
    bench.store.broken = True
    for number in range(50_000):
        bench.recorder.record("request.received", {"id": str(number), "queue": "q"})

    assert bench.store.batches == []


def test_a_thread_writes_by_itself_and_the_end_writes_the_rest(bench: Bench) -> None:
    bench.recorder.start()
    bench.recorder.start()
    bench.tell("a")
    assert bench.store.appended.wait(10)
    bench.tell("b")
    bench.recorder.stop()

    assert bench.recorder.join(10)
    assert [event["id"] for event in bench.store.events()] == ["a", "b"]


def test_what_the_end_cannot_write_is_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.store.broken = True
    bench.tell("a")
    bench.recorder.start()
    bench.recorder.stop()

    assert bench.recorder.join(10)
    assert "events are not in the journal: the journal could not be written before the end" in caplog.text


def test_one_that_was_never_started_has_ended(bench: Bench) -> None:
    bench.recorder.stop()

    assert bench.recorder.join(0.0)


def test_a_mistake_within_does_not_end_the_journal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def broken(batch: Batch) -> float:
        failed.set()
        raise ZeroDivisionError

    monkeypatch.setattr(bench.store, "append", broken)
    bench.tell("a")
    bench.recorder.start()
    assert failed.wait(10)
    monkeypatch.undo()
    bench.tell("b")
    bench.recorder.stop()

    assert bench.recorder.join(10)
    assert [event["id"] for event in bench.store.events() if event["id"]] == ["b"]
    assert bench.telemetry.count("journal.dropped") == 1


def test_while_somebody_is_in_a_hurry_nothing_is_written(bench: Bench) -> None:
    writer = threading.Thread(target=bench.recorder.step)
    bench.tell()
    with bench.recorder.held():
        writer.start()
        assert not bench.store.appended.wait(0.1)

    writer.join(30)
    assert bench.store.names() == ["request.received"]


def test_a_hurry_is_bounded_in_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_LONGEST_HOLD", 0.05)
    recorder = Recorder(bench.store, bench.telemetry)  # whose clock goes on
    bench.tell()
    with recorder.held():
        recorder.step()

    assert bench.store.names() == ["request.received"]


def test_a_hurry_is_bounded_in_what_waits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_LONGEST_HOLD", 1000.0)
    monkeypatch.setattr(record, "_HOLDS_BELOW", 0)
    bench.tell()
    with bench.recorder.held():
        bench.recorder.step()

    assert bench.store.names() == ["request.received"]
