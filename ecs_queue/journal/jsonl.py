"""A journal as a file of JSON lines, one event per line: write it, read it, import it into another journal."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from ecs_queue.errors import UsageError
from ecs_queue.journal.base import EventBatch, JournalEvent, JournalStore
from ecs_queue.journal.codec import UndecodableEvent, decode_event
from ecs_queue.journal.redact import redact_json

_BATCH_SIZE = 500

#: Returns the event as a line of an exported journal, without the line break.
encode_line: Callable[[JournalEvent], bytes] = msgspec.json.Encoder().encode


class InvalidJournalFile(UsageError):  # noqa: N818
    """The file is not a journal that `ecs-queue journal export` wrote."""


def write_events(events: Iterable[JournalEvent], sink: IO[bytes]) -> int:
    """Write the events as lines. Return their number."""
    count = 0
    for event in events:
        sink.write(encode_line(event) + b"\n")
        count += 1
    return count


def read_events(path: str | Path, warn: Callable[[str], None]) -> Iterator[JournalEvent]:
    """Yield the events of a file that `write_events` wrote, in its order.

    Args:
        path: the file.
        warn: gets a sentence when the last line is incomplete; that line is skipped.

    Raises:
        InvalidJournalFile: the file cannot be read, is empty, or has a line that is not an event or an event of a
            later version.
    """
    count = 0
    for number, line in _read_lines(Path(path)):
        try:
            raw = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if line.endswith(b"\n"):
                raise InvalidJournalFile(
                    f"{path}, line {number}: not JSON ({error}); is it an exported journal?"
                ) from None
            warn(f"{path} was cut in line {number}: that line is skipped, the {count} events before it are used")
            return
        try:
            if not isinstance(raw, dict):
                raise UndecodableEvent
            yield decode_event(raw)
        except UndecodableEvent as error:
            raise InvalidJournalFile(f"{path}, line {number}: {error}") from None
        count += 1
    if not count:
        raise InvalidJournalFile(f"{path} is empty: expected the lines of `ecs-queue journal export`")


def import_events(events: Iterable[JournalEvent], store: JournalStore) -> None:
    """Append the events to `store` in their order, with their time, worker and data. Secrets are redacted.

    Raises:
        JournalUnavailable: some events may have been appended.
    """
    writer_id = secrets.token_hex(8)
    rest = iter(events)
    for number in itertools.count(1):
        batch = list(itertools.islice(rest, _BATCH_SIZE))
        if not batch:
            return
        store.append(
            EventBatch(
                writer_id=writer_id,
                batch_number=number,
                worker="",
                event_count=len(batch),
                request_ids=list(dict.fromkeys(event.id for event in batch if event.id)),
                body=b"[" + b",".join(redact_json(_encode_without_seq(event)) for event in batch) + b"]",
            )
        )


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number and content of each line that is not blank."""
    try:
        with path.open("rb") as source:
            for number, line in enumerate(source, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise InvalidJournalFile(f"{path}: {error.strerror}; expected an exported journal") from None


def _encode_without_seq(event: JournalEvent) -> bytes:
    members: dict[str, object] = msgspec.to_builtins(event)
    del members["seq"]
    return msgspec.json.encode(members)
