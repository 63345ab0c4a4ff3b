"""The targets `journal` and `event`: elements of the journal, and ECS's task events."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from hypothesis import strategies as st

from ecs_queue.journal.base import SkippedEvents
from ecs_queue.journal.batches import sign_batch
from ecs_queue.journal.elements import ElementReader
from ecs_queue.messages.keyring import NO_KEYS, Keyring
from ecs_queue.protocol.record_defects import find_record_defect
from tests.fuzz.mutations import changed_bytes, changed_json, dump, inputs, json_values
from tests.fuzz.runner import Target
from tests.journal.readers import read_events
from tests.messages.golden_messages import SIGNS
from tests.worker.event_listener_harness import EventListenerHarness

#: Of one inflated element, and what it may become: JSON becomes Python objects of up to 60 times its size.
ELEMENT_BYTES = 20_000
_MAX_BYTES = 1024**2 + 100 * ELEMENT_BYTES
_GOLDEN = Path(__file__).parents[1] / "journal" / "golden" / "v1.jsonl"
_WRITER, _WORKER = "0123456789abcdef", "w1"
_EVENTS = [
    {key: value for key, value in msgspec.json.decode(line).items() if key not in ("seq", "worker")}
    for line in _GOLDEN.read_bytes().splitlines()
    if b'"data"' in line
]
Element = tuple[Keyring, dict[bytes, bytes]]


def _element(events: list[bytes], keyring: Keyring = NO_KEYS, worker: str = _WORKER) -> dict[bytes, bytes]:
    """An element as a writer with these keys appends it."""
    fields = {b"w": worker.encode(), b"z": zlib.compress(b"[" + b",".join(events) + b"]")}
    if keyring.has_signing_keys:
        fields |= {b"b": f"{_WRITER}:7".encode(), b"s": sign_batch(keyring, _WRITER, 7, worker, events).encode()}
    return fields


_GENUINE = [_element([msgspec.json.encode(event) for event in _EVENTS[start : start + 3]], SIGNS) for start in range(9)]


@st.composite
def _elements(draw: st.DrawFn) -> Element:
    event = st.sampled_from(_EVENTS) | st.sampled_from(_EVENTS).flatmap(changed_json)
    texts = draw(
        st.lists((event | json_values).map(dump) | changed_bytes([dump(each) for each in _EVENTS]), max_size=4)
    )
    fields = draw(st.just(_element(texts)) | st.sampled_from(_GENUINE).map(dict))
    for name in draw(st.lists(st.sampled_from((b"w", b"z", b"b", b"s")), max_size=2)):
        how = draw(st.sampled_from(("missing", "changed", "foreign", "huge")))
        if how == "missing":
            fields.pop(name, None)
        elif how == "huge":
            fields[name] = zlib.compress(b"[" + b"1," * draw(st.sampled_from((9_990, 10_010, 100_000))) + b"1]")
        else:
            valid = [element[name] for element in _GENUINE]
            fields[name] = draw(changed_bytes(valid) if how == "changed" else st.sampled_from(valid))
    return draw(st.sampled_from((NO_KEYS, SIGNS))), fields


def _check_element(example: Element) -> None:
    keyring, fields = example
    skipped = SkippedEvents()
    reader = ElementReader(keyring, ELEMENT_BYTES, skipped)
    found = list(reader.read("5-0", fields))
    assert reader.decoded_bytes <= ELEMENT_BYTES
    is_genuine = fields in _GENUINE
    if keyring.has_signing_keys:
        signed = [element for element in _GENUINE if element[b"s"] == fields.get(b"s")]
        assert not any(event.verified for event in found) or signed
        assert all(event.verified for event in found) or not is_genuine
    assert (len(found) == 3 and not len(skipped)) or not is_genuine
    read_events(found)


@contextmanager
def open_journal_target() -> Iterator[Target]:
    """Read an element of the journal with and without keys, and show, time and replay its events."""
    yield Target(_elements(), _check_element, _MAX_BYTES)


def _make_events() -> list[str]:
    """The events of one task, from its launch to its end."""
    harness = EventListenerHarness()
    arn = harness.launch()
    harness.ecs.mark_running(arn)
    harness.ecs.finish(arn, exit_code=3)
    return harness.pending_events


def _launched_harness() -> EventListenerHarness:
    harness = EventListenerHarness()
    harness.launch()
    harness.launch("other")
    return harness


@contextmanager
def open_event_target() -> Iterator[Target]:
    """Put a batch of messages into the event queue of a worker that follows a task, and have it read them."""
    valid = [text.encode() for text in _make_events()]
    body = inputs(valid, [msgspec.json.decode(text) for text in valid])

    def check(bodies: list[bytes]) -> None:
        harness = _launched_harness()
        harness.event_queue.send(*[text.decode(errors="surrogateescape") for text in bodies])
        harness.listener.step()
        assert len(harness.event_queue) == 0  # also what cannot be read is deleted: it would come for ever
        (other,) = harness.memory_ledger.get(["other"])
        for record in (harness.record(), other):
            assert find_record_defect(record) == "", find_record_defect(record)

    yield Target(st.lists(body, min_size=1, max_size=4), check, max_bytes=8 * 1024**2)
