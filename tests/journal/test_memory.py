"""A journal in memory reads as one on a server does."""

from __future__ import annotations

from ecs_queue.journal import JournalEvent, MemoryJournal


def event(seq: str, at: float, record_id: str = "a", name: str = "task.status_changed", **data: object) -> JournalEvent:
    return JournalEvent(v=1, seq=seq, at=at, name=name, id=record_id, data=dict(data))


def seqs(events: object) -> list[str]:
    return [one.seq for one in events]  # type: ignore[attr-defined]


LATE, EARLY, OTHER, LAST = event("9-0.1", 4.0), event("10-0.0", 3.0), event("9-0.0", 5.0, "b"), event("10-1.0", 9.0)
JOURNAL = MemoryJournal([LAST, LATE, OTHER, EARLY])


def test_all_are_in_the_order_of_their_place() -> None:
    assert seqs(JOURNAL.all_events()) == ["9-0.0", "9-0.1", "10-0.0", "10-1.0"]
    assert JOURNAL.last_seq() == "10-1.0"


def test_those_of_a_request_are_in_the_order_of_their_time() -> None:
    assert seqs(JOURNAL.request_events("a")) == ["10-0.0", "9-0.1", "10-1.0"]
    assert seqs(JOURNAL.request_events("nobody")) == []


def test_a_stretch_of_time_can_be_chosen() -> None:
    assert seqs(JOURNAL.all_events(4.0, 5.0)) == ["9-0.0", "9-0.1"]
    assert seqs(JOURNAL.request_events("a", since=4.0)) == ["9-0.1", "10-1.0"]
    assert seqs(JOURNAL.request_events("a", until=4.0)) == ["10-0.0", "9-0.1"]


def test_what_came_after_a_place_follows() -> None:
    assert seqs(JOURNAL.tail("9-0.1", 0.0)) == ["10-0.0", "10-1.0"]
    assert seqs(JOURNAL.tail("", 0.0)) == []


def test_the_newest_envelope_is_the_request() -> None:
    journal = MemoryJournal(
        event(f"{n}-0.0", float(n), name="request.submitted", envelope={"command": [str(n)]}) for n in (1, 2)
    )

    assert journal.request_envelope("a") == b'{"command":["2"]}'
    assert journal.request_envelope("b") is None


def test_an_empty_one_has_nothing() -> None:
    assert (list(MemoryJournal([]).all_events()), MemoryJournal([]).last_seq()) == ([], "")
