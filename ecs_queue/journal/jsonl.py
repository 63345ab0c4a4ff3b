"""A journal as a file of JSON lines: write it, read it, import it into another journal.

A line is one of these:

- `{"batch": {...}}`: a `SignedBatch`, before the first of its events that the file has
- a signed event: its JSON as it was signed, and at its end `seq`, `worker` and `signed`, its batch and position there
- an event without a signature
- `{"end": {"events": N}}`: the last line; without it, the file is a part of an export
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from ecs_queue.error_text import error_text
from ecs_queue.errors import UsageError
from ecs_queue.journal.base import JournalEvent, JournalStore, SignedBatch, event_to_dict
from ecs_queue.journal.batches import has_event, is_genuine
from ecs_queue.journal.codec import NotJson, UndecodableEvent, decode_event, decode_members
from ecs_queue.journal.encoder import BATCH_BYTES, MAX_BATCH_EVENTS, EventEncoder
from ecs_queue.journal.redact import Redaction, redact_json
from ecs_queue.messages.keyring import NO_KEYS, Keyring
from ecs_queue.named_file import open_named_file

#: A writer repeats a batch after this number of others, so that a reader needs to keep no more than these.
_KEPT_BATCHES = 256
_DEFAULT_LINE_BYTES = 1024 * 1024
_SIGNED = re.compile(r"([0-9a-f]{16}\.[0-9]{1,15})\.([0-9]{1,6})")


class InvalidJournalFile(UsageError):  # noqa: N818
    """The file is not a journal that `ecs-queue journal export` wrote."""


def encode_line(event: JournalEvent) -> bytes:
    """Return the event as a line of an exported journal, without the line break."""
    if event.source is None:
        return msgspec.json.encode(event_to_dict(event))
    name = f"{event.source.batch.name}.{event.source.position}"
    has_worker = b'"worker":' in event.source.text and "worker" in msgspec.json.decode(event.source.text)
    return event.source.text[:-1] + _trailer(event, name, not has_worker)


def write_events(events: Iterable[JournalEvent], sink: IO[bytes]) -> int:
    """Write the events, the batches of the signed ones, and the closing line. Return the number of events."""
    count = 0
    recent = _RecentBatches()
    for event in events:
        if event.source is not None and recent.find(event.source.batch.name) is None:
            recent.add(event.source.batch)
            sink.write(msgspec.json.encode({"batch": event.source.batch}) + b"\n")
        sink.write(encode_line(event) + b"\n")
        count += 1
    sink.write(msgspec.json.encode({"end": {"events": count}}) + b"\n")
    return count


def read_events(
    path: str | Path,
    warn: Callable[[str], None],
    keyring: Keyring = NO_KEYS,
    max_line_bytes: int = _DEFAULT_LINE_BYTES,
) -> Iterator[JournalEvent]:
    """Yield the events of a file that `write_events` wrote, in its order.

    Args:
        path: the file.
        warn: gets a sentence when the last line is incomplete (it is skipped), or when the closing line is missing.
        keyring: verifies the events, each for the namespace that its batch names.
        max_line_bytes: maximum size of a line.

    Raises:
        InvalidJournalFile: the file cannot be read, is empty, has a line that is not an event or an event of a later
            version, or has not as many events as its closing line says.
    """
    yield from _FileReader(str(path), warn, keyring, max_line_bytes).read()


class _FileReader:
    """Reads one file once."""

    def __init__(self, path: str, warn: Callable[[str], None], keyring: Keyring, max_line_bytes: int) -> None:
        self._path = path
        self._warn = warn
        self._keyring = keyring
        self._max_line_bytes = max_line_bytes
        self._batches = _RecentBatches()
        self._genuine: dict[str, bool] = {}
        self._count = 0
        self._counted = 0  # by the closing lines of the exports before, in a file made of several
        self._is_complete = False

    def read(self) -> Iterator[JournalEvent]:
        """Yield the events."""
        for number, line in self._read_lines():
            try:
                event = self._read_line(line)
            except UndecodableEvent as error:
                if isinstance(error, NotJson) and not line.endswith(b"\n"):
                    self._warn(
                        f"{self._path} was cut in line {number}: that line is skipped, the {self._count} events before "
                        "it are used"
                    )
                    return
                hint = "; is it an exported journal?" if isinstance(error, NotJson) else ""
                raise self._error(number, f"{error}{hint}") from None
            except _WrongCount as error:
                raise self._error(number, str(error)) from None
            if event is not None:
                self._count += 1
                yield event
        if not self._count and not self._is_complete:
            raise InvalidJournalFile(f"{self._path} is empty: expected the lines of `ecs-queue journal export`")
        if not self._is_complete:
            self._warn(
                f"{self._path} has no closing line: it is a part of an export, or an older version wrote it; its "
                f"{self._count} events are used"
            )

    def _read_line(self, line: bytes) -> JournalEvent | None:
        members = decode_members(line)
        self._is_complete = "end" in members
        if self._is_complete:
            self._check_end(members["end"])
            return None
        if "batch" in members:
            self._add_batch(members["batch"])
            return None
        event = decode_event(members)
        is_checked = self._keyring.has_signing_keys
        return msgspec.structs.replace(event, verified=self._is_verified(event, members, line) if is_checked else None)

    def _check_end(self, end: Any) -> None:
        expected = end.get("events") if isinstance(end, dict) else None
        found = self._count - self._counted
        self._counted = self._count
        if expected != found:
            raise _WrongCount(f"its closing line counts {expected} events, found {found}; export the journal again")

    def _add_batch(self, members: Any) -> None:
        try:
            batch = msgspec.convert(members, SignedBatch)
        except msgspec.ValidationError as error:
            raise UndecodableEvent(f"not the signature of a batch: {error_text(error)}") from None
        self._batches.add(batch)
        self._genuine[batch.name] = self._keyring.has_signing_keys and is_genuine(batch, self._keyring)

    def _is_verified(self, event: JournalEvent, members: dict[str, Any], line: bytes) -> bool:
        named = _SIGNED.fullmatch(str(members.get("signed")))
        batch = None if named is None else self._batches.find(named[1])
        if named is None or batch is None or not self._genuine[batch.name]:
            return False
        line = line.rstrip()
        for has_worker in (True, False):
            trailer = _trailer(event, named[0], has_worker)
            if line.endswith(trailer) and (event.worker == batch.worker or not has_worker):
                return has_event(batch, int(named[2]), line.removesuffix(trailer) + b"}")
        return False

    def _read_lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number and content of each line that is not blank."""
        try:
            with open_named_file(self._path) as source:
                for number in itertools.count(1):
                    line = source.readline(self._max_line_bytes + 1)
                    if not line:
                        return
                    if len(line) > self._max_line_bytes:
                        raise self._error(
                            number,
                            f"it has more than {self._max_line_bytes} bytes: is it an exported journal? "
                            "(journal_element_bytes)",
                        )
                    if line.strip():
                        yield number, line
        except OSError as error:
            raise InvalidJournalFile(f"{self._path}: {error.strerror}; expected an exported journal") from None

    def _error(self, number: int, problem: str) -> InvalidJournalFile:
        return InvalidJournalFile(f"{self._path}, line {number}: {problem}")


class _WrongCount(Exception):  # noqa: N818 - never leaves this module
    """The closing line counts other events."""


class _RecentBatches:
    """The batches that a file named last."""

    def __init__(self) -> None:
        self._by_name: OrderedDict[str, SignedBatch] = OrderedDict()

    def find(self, name: str) -> SignedBatch | None:
        return self._by_name.get(name)

    def add(self, batch: SignedBatch) -> None:
        self._by_name[batch.name] = batch
        if len(self._by_name) > _KEPT_BATCHES:
            self._by_name.popitem(last=False)


def import_events(events: Iterable[JournalEvent], store: JournalStore, encoder: EventEncoder) -> int:
    """Append the events to `store` in their order, with their time, worker and data. Return how many are unverified.

    Verified events are signed anew by `encoder`. Unverified ones are appended without a signature: they stay
    unverified.

    Raises:
        JournalUnavailable: some events may have been appended.
    """
    writer_id = secrets.token_hex(8)
    unsigned = EventEncoder()
    numbers = itertools.count(1)
    unsigned_count = 0
    for is_trusted, group in itertools.groupby(events, lambda event: event.verified is not False):
        for texts, ids in _split_batches(group, encoder.redaction):
            chosen = encoder if is_trusted else unsigned
            store.append(chosen.build_batch(writer_id, next(numbers), "", texts, ids))
            unsigned_count += 0 if is_trusted else len(texts)
    return unsigned_count


def _split_batches(events: Iterable[JournalEvent], redaction: Redaction) -> Iterator[tuple[list[bytes], list[str]]]:
    """Yield the encoded events of each batch, and the ids of their requests."""
    texts, ids, size = list[bytes](), dict[str, None](), 0
    for event in events:
        text = redact_json(_encode_without_seq(event), redaction)
        texts.append(text)
        size += len(text)
        if event.id:
            ids[event.id] = None
        if len(texts) == MAX_BATCH_EVENTS or size >= BATCH_BYTES:
            yield texts, list(ids)
            texts, ids, size = [], {}, 0
    if texts:
        yield texts, list(ids)


def _trailer(event: JournalEvent, signed: str, has_worker: bool) -> bytes:
    """What an exported line has after the members that are signed."""
    members = {"seq": event.seq, **({"worker": event.worker} if has_worker else {}), "signed": signed}
    return b"," + msgspec.json.encode(members)[1:]


def _encode_without_seq(event: JournalEvent) -> bytes:
    members = event_to_dict(event)
    del members["seq"]
    return msgspec.json.encode(members)
