"""A journal as a file of JSON lines, one event a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from ecs_queue.errors import UsageError
from ecs_queue.journal.base import JournalEvent
from ecs_queue.journal.versions import UndecodableEvent, decode_event

_encode = msgspec.json.Encoder().encode


class InvalidJournalFile(UsageError):  # noqa: N818
    """The file is no journal: expected what `ecs-queue journal export` writes."""


def encode_line(event: JournalEvent) -> bytes:
    """The event as a line of an exported journal, without the line break."""
    return _encode(event)


def write_events(events: Iterable[JournalEvent], sink: IO[bytes]) -> int:
    """Write the events as lines; how many."""
    number = 0
    for event in events:
        sink.write(encode_line(event) + b"\n")
        number += 1
    return number


def read_events(path: str | Path, warn: Callable[[str], None]) -> Iterator[JournalEvent]:
    """The events of a file that `write_events` wrote, in its order.

    A last line that was cut is left out, and `tell` gets a sentence about it. UnusableFile when the file cannot be
    read, is empty, or has a line that is no event, or an event of a later version.
    """
    number = 0
    for place, line, is_whole in _read_lines(Path(path)):
        try:
            raw = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if is_whole:
                raise InvalidJournalFile(
                    f"{path}, line {place}: not JSON ({error}); is it an exported journal?"
                ) from None
            warn(f"{path} was cut in line {place}: that line is left out, the {number} events before it are used")
            return
        try:
            if not isinstance(raw, dict):
                raise UndecodableEvent
            yield decode_event(raw)
        except UndecodableEvent as error:
            raise InvalidJournalFile(f"{path}, line {place}: {error}") from None
        number += 1
    if not number:
        raise InvalidJournalFile(f"{path} is empty: expected the lines of `ecs-queue journal export`")


def _read_lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Each line that is not blank, its number, and whether it has its line break."""
    try:
        with path.open("rb") as source:
            for place, line in enumerate(source, 1):
                if line.strip():
                    yield place, line, line.endswith(b"\n")
    except OSError as error:
        raise InvalidJournalFile(f"{path}: {error.strerror}; expected an exported journal") from None
