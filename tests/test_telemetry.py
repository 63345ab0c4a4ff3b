"""The catalogue of events."""

from __future__ import annotations

import ast
import logging
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import ecs_queue
from ecs_queue.telemetry import EVENTS, TRACE, Telemetry

PACKAGE = Path(ecs_queue.__file__).parent


def _emits() -> Iterator[tuple[str, str, frozenset[str] | None]]:
    """(where, event, the fields given by name, or None where some come from a dictionary) of every emit."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "emit":
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: the event is no literal"
                given = [keyword.arg for keyword in node.keywords]
                fields = None if None in given else frozenset(str(field) for field in given)
                yield f"{path.name}:{node.lineno}", str(name.value), fields


def test_every_event_that_is_emitted_is_in_the_catalogue_with_its_very_fields() -> None:
    emitted = list(_emits())

    assert emitted
    for where, name, fields in emitted:
        assert name in EVENTS, where
        assert fields is None or fields == {*EVENTS[name].fields, *EVENTS[name].journal_only}, where


def test_every_event_of_the_catalogue_is_emitted_somewhere() -> None:
    assert {name for _, name, _ in _emits()} == set(EVENTS)


@pytest.mark.parametrize("name", EVENTS)
def test_a_sentence_names_only_fields_of_its_event(name: str) -> None:
    named = {field for _, field, _, _ in string.Formatter().parse(EVENTS[name].message) if field}

    assert named <= set(EVENTS[name].fields)


def test_an_event_is_logged_with_its_name_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="ecs_queue"):
        Telemetry().emit("circuit.opened", queue="q", reason="100 % {broken}", seconds=5)

    (entry,) = caplog.records
    assert entry.getMessage() == "queue q: no launches from this worker for 5 s: 100 % {broken}"
    assert entry.levelno == logging.ERROR
    assert entry.__dict__["event"] == "circuit.opened"
    assert entry.__dict__["fields"]["queue"] == "q"


def test_events_are_counted_by_name() -> None:
    telemetry = Telemetry()
    for _ in range(3):
        telemetry.emit("circuit.closed", queue="q")

    assert (telemetry.count("circuit.closed"), telemetry.count("health.degraded")) == (3, 0)


def test_every_sink_gets_every_event() -> None:
    one: list[str] = []
    other: list[str] = []
    telemetry = Telemetry(lambda name, fields: one.append(name), lambda name, fields: other.append(fields["queue"]))

    telemetry.emit("circuit.closed", queue="q")

    assert (one, other) == (["circuit.closed"], ["q"])


def test_a_sink_that_fails_stops_neither_the_caller_nor_the_other_sinks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    got: list[str] = []

    def broken(name: str, fields: object) -> None:
        raise OSError("the disk is full")

    Telemetry(broken, lambda name, fields: got.append(name)).emit("circuit.closed", queue="q")

    assert got == ["circuit.closed"]
    assert "a sink failed at the event circuit.closed" in caplog.text


def test_an_event_that_is_not_in_the_catalogue_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Telemetry().emit("no.such.event")


def test_what_only_the_journal_keeps_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    got: list[dict[str, object]] = []
    given = {"id": "a", "queue": "q", "owner": "me", "nonce": "n", "namespace": "ns", "envelope": b"hunter2"}
    with caplog.at_level(TRACE, logger="ecs_queue"):
        Telemetry(lambda name, fields: got.append(fields)).emit("request.submitted", **given)

    assert got == [given]
    assert "hunter2" not in str([vars(entry) for entry in caplog.records])
    assert caplog.records[0].__dict__["fields"] == {"id": "a", "queue": "q", "owner": "me"}


def test_a_sink_that_is_added_gets_what_comes_from_then_on() -> None:
    got: list[str] = []
    telemetry = Telemetry()
    telemetry.emit("circuit.closed", queue="q")
    telemetry.add_sink(lambda name, fields: got.append(name))
    telemetry.emit("worker.stopped", worker="w")

    assert got == ["worker.stopped"]
