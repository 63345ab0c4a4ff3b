"""A journal as a file: written, read back, cut, empty, or invalid."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from ecs_queue.journal import JournalEvent
from ecs_queue.journal.base import EVENT_VERSION
from ecs_queue.journal.jsonl import InvalidJournalFile, read_events, write_events

EVENTS = [
    JournalEvent(
        v=EVENT_VERSION, seq=f"{n}-0.0", at=n + 0.25, name="launch.started", id="grüße", data={"arn": f"{n} 🚀"}
    )
    for n in range(1, 6)
]


@pytest.fixture
def complete() -> bytes:
    sink = io.BytesIO()
    assert write_events(EVENTS, sink) == len(EVENTS)
    return sink.getvalue()


def _read(folder: Path, content: bytes) -> tuple[list[JournalEvent], list[str]]:
    file = folder / "journal.jsonl"
    file.write_bytes(content)
    warnings: list[str] = []
    return list(read_events(file, warnings.append)), warnings


def test_written_events_are_read_back_unchanged(tmp_path: Path, complete: bytes) -> None:
    assert complete.count(b"\n") == len(EVENTS) + 1
    assert complete.endswith(b'\n{"end":{"events":5}}\n')
    assert _read(tmp_path, complete) == (EVENTS, [])


def test_a_cut_file_gives_its_complete_lines_and_a_warning(tmp_path: Path, complete: bytes) -> None:
    starts = [0, *(match.end() for match in re.finditer(b"\n", complete))]
    for line in (5, 6):
        for end in range(starts[line - 1] + 1, starts[line] - 1):
            events, warnings = _read(tmp_path, complete[:end])
            assert events == EVENTS[: line - 1]
            assert len(warnings) == 1
            assert f"was cut in line {line}" in warnings[0]
            assert f"the {line - 1} events before it are used" in warnings[0]


def test_a_file_without_its_closing_line_is_a_part_and_that_is_reported(tmp_path: Path, complete: bytes) -> None:
    events, warnings = _read(tmp_path, complete[: complete.index(b'{"end"')])

    assert events == EVENTS
    assert warnings == [
        f"{tmp_path / 'journal.jsonl'} has no closing line: it is a part of an export, or an older version wrote it; "
        "its 5 events are used"
    ]


def test_a_file_with_fewer_events_than_its_closing_line_counts_is_an_error(tmp_path: Path, complete: bytes) -> None:
    lines = complete.splitlines(keepends=True)

    with pytest.raises(InvalidJournalFile, match=r"line 5: its closing line counts 5 events, found 4"):
        _read(tmp_path, b"".join(lines[1:]))


def test_exports_that_were_put_together_are_read(tmp_path: Path, complete: bytes) -> None:
    assert _read(tmp_path, complete + complete) == (EVENTS * 2, [])


def test_a_line_beyond_the_limit_is_an_error_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_bytes(b'{"v":1,"name":"' + b"x" * 2000)

    with pytest.raises(InvalidJournalFile, match=r"line 1: it has more than 1000 bytes"):
        list(read_events(file, print, max_line_bytes=1000))


def test_a_complete_last_line_needs_no_line_break(tmp_path: Path, complete: bytes) -> None:
    assert _read(tmp_path, complete[:-1]) == (EVENTS, [])


def test_blank_lines_are_skipped(tmp_path: Path, complete: bytes) -> None:
    assert _read(tmp_path, complete.replace(b"\n", b"\n\n"))[0] == EVENTS


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidJournalFile, match="is empty"):
        _read(tmp_path, content)


@pytest.mark.parametrize(
    ("invalid_line", "message"),
    [
        (b"hello\n", "line 3: not JSON"),
        (b'{"v":1\n', "line 3: not JSON"),
        (b"\xff\xfe{}\n", "line 3: not JSON"),
        (b"[1]\n", "line 3: The JSON is not an event of a journal"),
        (b'{"id": "a1", "command": ["true"]}\n', 'line 3: expected a journal event with its version as "v"'),
        (b'{"v":99}\n', "line 3: event version 99 is unknown"),
    ],
)
def test_a_line_that_is_not_an_event_is_named(
    tmp_path: Path, complete: bytes, invalid_line: bytes, message: str
) -> None:
    lines = complete.splitlines(keepends=True)
    with pytest.raises(InvalidJournalFile, match=message):
        _read(tmp_path, b"".join([*lines[:2], invalid_line, *lines[2:]]))


@pytest.mark.parametrize("name", ["nowhere.jsonl", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidJournalFile, match="expected an exported journal"):
        list(read_events(tmp_path / name, print))
