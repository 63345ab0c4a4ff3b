"""Elements of the stream that are broken, or too large: each is skipped by itself, and counted."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.journal.base import SkippedEvents
from ecs_queue.journal.codec import encode_event
from ecs_queue.journal.elements import BrokenElement, ElementReader, inflate
from ecs_queue.journal.encoder import EventEncoder
from ecs_queue.journal.last_hour import HourCounter
from ecs_queue.messages.keyring import NO_KEYS, Keyring, SigningKey
from ecs_queue.telemetry import EVENTS
from tests.journal.readers import read_events

LIMIT = 20_000
EVENT = {"v": 1, "at": 1.5, "name": "request.received", "id": "a", "data": {"queue": "q"}}


def read(fields: dict[bytes, bytes]) -> tuple[list[str], SkippedEvents]:
    skipped = SkippedEvents()
    return [event.id for event in ElementReader(NO_KEYS, LIMIT, skipped).read("5-0", fields)], skipped


def element(body: bytes) -> dict[bytes, bytes]:
    return {b"w": b"w1", b"z": zlib.compress(body)}


def encoded(*events: object) -> bytes:
    return msgspec.json.encode(list(events))


def test_no_more_than_the_limit_is_inflated() -> None:
    assert len(inflate(zlib.compress(b"x" * LIMIT), LIMIT)) == LIMIT
    with pytest.raises(BrokenElement, match="it has more than 20000 bytes inflated, more than journal_element_bytes"):
        inflate(zlib.compress(b"x" * (LIMIT + 1)), LIMIT)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({b"w": b"w1"}, "it has no field b'z'"),
        ({b"z": zlib.compress(b"[]")}, "it has no field b'w'"),
        ({b"w": b"w1", b"z": b"no zlib"}, "it cannot be inflated"),
        ({b"w": b"w1", b"z": zlib.compress(encoded(EVENT))[:-3]}, "its end is missing"),
        ({b"w": b"\xff", b"z": zlib.compress(encoded(EVENT))}, "can't decode byte 0xff"),
        (element(b"{}"), "it is not a JSON array of events"),
        (element(b"[1"), "it is not a JSON array of events"),
        (element(b"[" * 15_000), "it is not a JSON array of events"),
        (element(b"[\xff]"), "it is not a JSON array of events"),
        (element(encoded("x" * LIMIT)), "more than journal_element_bytes allows"),
    ],
)
def test_an_element_that_is_no_batch_is_skipped_with_the_reason(fields: dict[bytes, bytes], reason: str) -> None:
    events, skipped = read(fields)

    assert (events, len(skipped)) == ([], 1)
    assert skipped.message().startswith("the journal has 1 broken entries, which are skipped; the first is 5-0: ")
    assert reason in skipped.message()


@pytest.mark.parametrize(
    "broken",
    [
        3,
        [],
        {},
        {**EVENT, "v": 99},
        {**EVENT, "at": -1},
        {**EVENT, "at": 1e300},
        {**EVENT, "id": 3},
        {**EVENT, "worker": []},
        {**EVENT, "data": msgspec.Raw(b'{"a":' * 70 + b"1" + b"}" * 70)},
        {**EVENT, "data": msgspec.Raw(b'{"a":1e999}')},
    ],
    ids=[*("number", "array", "empty", "version", "negative", "far", "id", "worker"), "too deep", "out of range"],
)
def test_an_event_that_is_none_hides_no_other_event_of_its_batch(broken: object) -> None:
    events, skipped = read(element(encoded(EVENT, broken, {**EVENT, "id": "b"})))

    assert (events, len(skipped)) == (["a", "b"], 1)
    assert "the first is 5-0.1: " in skipped.message()


def test_an_entry_that_is_read_again_is_counted_once() -> None:
    skipped = SkippedEvents()
    for _ in range(3):
        skipped.add("5-0", "broken")

    assert len(skipped) == 1


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["2025-01-31T12:00:00Z", "0001-01-01T00:00:00", "STOPPED"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
#: Members that the readers look at, beside any others.
KNOWN_MEMBERS = (
    *("launch", "attempt", "arn", "reason", "state", "exit_code", "code", "kind", "task", "poll_input", "decision"),
    *("launch_spec", "target", "envelope", "nonce", "namespace", "result", "record", "draw", "backoff"),
    *("startedAt", "stoppedAt", "pullStartedAt", "update", "containers"),
)
data = st.dictionaries(st.sampled_from(KNOWN_MEMBERS), json_values | st.dictionaries(
    st.sampled_from(KNOWN_MEMBERS), json_values, max_size=4), max_size=6)  # fmt: skip
events = st.fixed_dictionaries(
    {"v": st.just(1), "at": st.floats(0, 2e11), "name": st.sampled_from(sorted(EVENTS)) | st.text(max_size=9)},
    optional={"id": st.just("a"), "worker": st.text(max_size=9), "data": data},
)


@given(st.lists(events | json_values, max_size=6))
def test_no_event_of_any_form_stops_a_reader(values: list[Any]) -> None:
    """Every reader takes what others may have written: it shows it, leaves it out, or counts it."""
    found = list(ElementReader(NO_KEYS, 2**20, SkippedEvents()).read("5-0", element(encoded(*values))))
    read_events(found)
    summary = ElementReader(NO_KEYS, 2**20, SkippedEvents()).summarize("5-0", element(encoded(*values)), 100)
    HourCounter().update([summary], 1e9)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_stop_the_reader(stored: bytes, inflated: bytes) -> None:
    list(ElementReader(NO_KEYS, LIMIT, SkippedEvents()).read("5-0", {b"w": stored, b"z": stored, b"s": stored}))
    list(ElementReader(NO_KEYS, LIMIT, SkippedEvents()).read("5-0", element(inflated)))
    ElementReader(NO_KEYS, LIMIT, SkippedEvents()).summarize("5-0", {b"w": stored, b"z": stored, b"s": stored}, 1)
    ElementReader(NO_KEYS, LIMIT, SkippedEvents()).summarize("5-0", element(inflated), 1)


def test_a_summary_has_the_events_that_are_counted_and_skips_broken_ones() -> None:
    skipped = SkippedEvents()
    ended = {**EVENT, "name": "request.ended", "data": {"state": "SUCCESS", "exit_code": [0]}}
    launched = {**EVENT, "name": "launch.started", "data": {"queued_at": 1.25}}
    body = encoded(EVENT, ended, 3, launched, {"name": "request.ended"})
    summary = ElementReader(NO_KEYS, LIMIT, skipped).summarize("5-0", element(body), 77)
    assert (summary.element, summary.size, summary.unverified) == ("5-0", 77, 0)
    assert [(event.name, event.data.state, event.data.queued_at) for event in summary.events] == [
        ("request.ended", "SUCCESS", 0.0),
        ("launch.started", "", 1.25),
    ]
    assert len(skipped) == 2


def test_the_summary_of_a_broken_element_has_no_events() -> None:
    skipped = SkippedEvents()
    assert ElementReader(NO_KEYS, LIMIT, skipped).summarize("5-0", element(b"{}"), 77).events == ()
    assert len(skipped) == 1


def test_a_summary_leaves_out_what_is_not_signed_where_there_are_keys() -> None:
    keyring = Keyring("ns", [SigningKey("k1", b"s" * 32)])
    ended = encode_event(1.5, "request.ended", {"id": "a", **dict.fromkeys(EVENTS["request.ended"].fields[1:], "x")})
    batch = EventEncoder(keyring).build_batch("0123456789abcdef", 1, "w1", [ended], ["a"])
    signed = {**element(batch.body), b"b": b"0123456789abcdef:1", b"s": batch.signature.encode()}

    def summarize(fields: dict[bytes, bytes]) -> tuple[int, int]:
        found = ElementReader(keyring, LIMIT, SkippedEvents()).summarize("5-0", fields, 77)
        return len(found.events), found.unverified

    assert summarize(signed) == (1, 0)
    assert summarize({**signed, b"s": signed[b"s"][:-1] + b"x"}) == (0, 1)
    assert summarize(element(batch.body)) == (0, 1)
