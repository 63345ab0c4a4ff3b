"""Signed batches: which events of the server and of a file a reader may believe."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ecs_queue.journal import JournalEvent
from ecs_queue.journal.base import SkippedEvents
from ecs_queue.journal.elements import ElementReader
from ecs_queue.journal.encoder import EventEncoder
from ecs_queue.journal.jsonl import import_events, read_events, write_events
from ecs_queue.messages.keyring import Keyring, SigningKey
from tests.fake_clock import FakeClock
from tests.journal.fake_journal_store import FakeJournalStore

OLD, NEW = SigningKey("old", b"o" * 32), SigningKey("new", b"n" * 32)
KEYRING = Keyring("prod", [OLD])
WRITER = "0123456789abcdef"
Fields = dict[bytes, bytes]


def make_fields(keyring: Keyring = KEYRING, events: int = 3, worker: str = "w1", number: int = 7) -> Fields:
    """The fields of an element as append.lua stores them."""
    encoder = EventEncoder(keyring)
    texts = [encoder.encode(float(n), "request.received", {"id": f"r{n}", "queue": "q"}) for n in range(events)]
    batch = encoder.build_batch(WRITER, number, worker, texts, [])
    fields = {b"w": worker.encode(), b"n": b"%d" % events, b"z": zlib.compress(batch.body), b"i": b""}
    signed = {b"b": b"%s:%d" % (WRITER.encode(), number), b"s": batch.signature.encode()}
    return fields | signed if batch.signature else fields


def read(fields: Fields, keyring: Keyring = KEYRING) -> list[JournalEvent]:
    return list(ElementReader(keyring, 2**20, SkippedEvents()).read("5-0", fields))


def change_events(change: Callable[[list[Any]], object]) -> Callable[[Fields], Fields]:
    def changed(fields: Fields) -> Fields:
        events = msgspec.json.decode(zlib.decompress(fields[b"z"]))
        change(events)
        return {**fields, b"z": zlib.compress(msgspec.json.encode(events))}

    return changed


def test_the_events_of_a_signed_batch_are_verified() -> None:
    assert [event.verified for event in read(make_fields())] == [True, True, True]


def test_without_signing_keys_nothing_is_said_about_any_event() -> None:
    assert {event.verified for event in read(make_fields(), Keyring("prod"))} == {None}
    assert {event.verified for event in read(make_fields(Keyring("prod")), Keyring("prod"))} == {None}


def test_during_a_rotation_both_keys_verify_and_afterwards_the_old_one_does_not() -> None:
    fields = make_fields()

    assert {event.verified for event in read(fields, Keyring("prod", [NEW, OLD]))} == {True}
    assert {event.verified for event in read(fields, Keyring("prod", [NEW]))} == {False}


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: {name: value for name, value in fields.items() if name not in (b"b", b"s")},
        lambda fields: {**fields, b"s": b""},
        lambda fields: {**fields, b"s": fields[b"s"][:-1] + (b"1" if fields[b"s"][-1:] == b"0" else b"0")},
        lambda fields: {**fields, b"s": b"\xff" + fields[b"s"]},
        lambda fields: {**fields, b"s": make_fields(Keyring("prod", [NEW]))[b"s"]},
        lambda fields: {**fields, b"s": make_fields(Keyring("other", [OLD]))[b"s"]},
        lambda fields: {**fields, b"b": b"%s:8" % WRITER.encode()},
        lambda fields: {**fields, b"b": b"fedcba9876543210:7"},
        lambda fields: {**fields, b"b": b"nonsense"},
        lambda fields: {**fields, b"w": b"w2"},
        change_events(lambda events: events.reverse()),
        change_events(lambda events: events.pop()),
        change_events(lambda events: events.append(events[0])),
        change_events(lambda events: events[1]["data"].update(queue="other")),
        change_events(lambda events: [event.update(verified=True) for event in events]),
    ],
    ids=[
        *("no signature", "empty", "wrong", "not ASCII", "another key", "another namespace", "another number"),
        *("another writer", "no batch", "another worker", "order", "fewer events", "more events", "another value"),
        "says that it is verified",
    ],
)
def test_a_batch_that_was_changed_is_unverified(change: Callable[[Fields], Fields]) -> None:
    events = read(change(make_fields()))

    assert {event.verified for event in events} == {False}


class ExportedFile:
    """Signed events of two batches in a file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.jsonl"
        self.events = [*read(make_fields()), *read(make_fields(worker="w2", number=8))]
        self.write(self.events)

    def write(self, events: list[JournalEvent]) -> None:
        with self.path.open("wb") as sink:
            write_events(events, sink)

    def read(self, keyring: Keyring = KEYRING) -> list[JournalEvent]:
        return list(read_events(self.path, pytest.fail, keyring))


@pytest.fixture
def exported(tmp_path: Path) -> ExportedFile:
    return ExportedFile(tmp_path)


def test_an_exported_file_is_verified_where_the_keys_are_under_any_namespace(exported: ExportedFile) -> None:
    for keyring in (KEYRING, Keyring("load-test", [NEW, OLD])):
        assert [(e.seq, e.worker, e.name, e.id, e.verified) for e in exported.read(keyring)] == [
            (event.seq, event.worker, event.name, event.id, True) for event in exported.events
        ]
    assert {event.verified for event in exported.read(Keyring("prod"))} == {None}
    assert {event.verified for event in exported.read(Keyring("prod", [NEW]))} == {False}


def test_a_part_of_a_batch_is_verified_without_the_rest(exported: ExportedFile) -> None:
    exported.write([exported.events[4], exported.events[1]])

    assert [(event.id, event.verified) for event in exported.read()] == [("r1", True), ("r1", True)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"queue":"q"', b'"queue":"x"'),
        (b'"id":"r1"', b'"id":"r2"'),
        (b'"worker":"w1"', b'"worker":"w2"'),
        (b'.1"}', b'.2"}'),
        (b'"namespace":"prod"', b'"namespace":"test"'),
        (b'"batch_number":7', b'"batch_number":9'),
        (b'"signature":"old:', b'"signature":"old:0'),
        (b'"data"', b'"verified":true,"data"'),
    ],
)
def test_an_edited_line_is_unverified(exported: ExportedFile, old: bytes, new: bytes) -> None:
    exported.path.write_bytes(exported.path.read_bytes().replace(old, new, 1))

    assert False in {event.verified for event in exported.read()}


def test_a_line_without_its_batch_is_unverified(exported: ExportedFile) -> None:
    lines = exported.path.read_bytes().splitlines(keepends=True)
    exported.path.write_bytes(b"".join(lines[1:]))

    assert [event.verified for event in exported.read()] == [False, False, False, True, True, True]


def test_a_file_of_many_batches_is_verified_although_only_the_newest_are_kept(exported: ExportedFile) -> None:
    many = [read(make_fields(events=2, number=number)) for number in range(300)]
    exported.write([first for first, _ in many] + [second for _, second in many])

    assert [event.verified for event in exported.read()] == [True] * 600


def test_imported_events_stay_what_they_were(exported: ExportedFile) -> None:
    """Verified ones are signed anew, for the importing namespace; an import must not vouch for the others."""
    forged = msgspec.structs.replace(exported.events[0], id="forged", source=None)
    exported.write([exported.events[0], forged, exported.events[1]])
    importer = Keyring("incident", [NEW, OLD])
    store = FakeJournalStore(FakeClock(1.0))

    unsigned = import_events(exported.read(importer), store, EventEncoder(importer))

    assert unsigned == 1
    assert [(batch.event_count, bool(batch.signature)) for batch in store.batches] == [(1, True), (1, False), (1, True)]
    for batch, verified in zip(store.batches, (True, False, True), strict=True):
        name = f"{batch.writer_id}:{batch.batch_number}".encode()
        fields = {b"w": b"", b"z": zlib.compress(batch.body), b"b": name, b"s": batch.signature.encode()}
        assert [event.verified for event in read(fields, importer)] == [verified]


def test_an_imported_signed_event_is_exported_and_verified_again(exported: ExportedFile) -> None:
    store = FakeJournalStore(FakeClock(1.0))
    import_events(exported.read(), store, EventEncoder(KEYRING))
    (batch,) = store.batches
    name = f"{batch.writer_id}:{batch.batch_number}".encode()
    fields = {b"w": b"", b"z": zlib.compress(batch.body), b"b": name, b"s": batch.signature.encode()}

    exported.write(read(fields))

    assert [(event.worker, event.verified) for event in exported.read()] == [("w1", True)] * 3 + [("w2", True)] * 3


def test_unsigned_events_are_exported_in_one_line_each() -> None:
    sink = io.BytesIO()
    write_events(read(make_fields(Keyring("prod")), Keyring("prod")), sink)

    lines = [msgspec.json.decode(line) for line in sink.getvalue().splitlines()]
    assert [list(line) for line in lines] == [["v", "seq", "at", "name", "id", "worker", "data"]] * 3 + [["end"]]
