"""Reads the elements of the journal's stream: each is bounded, inflated, verified and decoded by itself.

Any process that can write to the server can add elements. One that cannot be read is skipped and counted, so that it
hides nothing but itself.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping

import msgspec

from ecs_queue.error_text import error_text
from ecs_queue.errors import PermanentError
from ecs_queue.journal.base import EventSource, JournalEvent, SignedBatch, SkippedEvents
from ecs_queue.journal.batches import hash_events, is_genuine
from ecs_queue.journal.codec import UndecodableEvent, parse_event
from ecs_queue.journal.last_hour import COUNTED, ElementSummary, EventSummary
from ecs_queue.messages.keyring import Keyring

_BATCH_NAME = re.compile(rb"([0-9a-f]{16}):([0-9]{1,15})")
_events_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_summary_decoder = msgspec.json.Decoder(EventSummary)


class BrokenElement(PermanentError):  # noqa: N818
    """The element is not a batch of events."""


class ElementReader:
    """Decodes elements of one namespace's journal."""

    def __init__(self, keyring: Keyring, max_bytes: int, skipped: SkippedEvents) -> None:
        """Verify with `keyring`, whose namespace is the journal's; count what is skipped in `skipped`.

        Args:
            keyring: without signing keys, nothing is verified.
            max_bytes: maximum size of an element when it is inflated.
            skipped: counts broken elements and events.
        """
        self._keyring = keyring
        self._max_bytes = max_bytes
        self._skipped = skipped
        self.decoded_bytes = 0  # of all events so far

    def read(self, element: str, fields: Mapping[bytes, bytes], only_id: str = "") -> Iterator[JournalEvent]:
        """Yield the events of one element, or those of one request. Never raises for what stands in it."""
        found = self._open(element, fields)
        if found is None:
            return
        worker, texts = found
        batch = _read_signature(fields, self._keyring.namespace, worker, texts)
        verified = batch is not None and is_genuine(batch, self._keyring) if self._keyring.has_signing_keys else None
        for position, text in enumerate(texts):
            if only_id and f'"{only_id}"'.encode() not in text:
                continue
            self.decoded_bytes += len(text)
            seq = f"{element}.{position}"
            try:
                event = parse_event(text, seq, worker)
            except UndecodableEvent as error:
                self._skipped.add(seq, str(error))
                continue
            if only_id and event.id != only_id:
                continue
            source = None if batch is None else EventSource(batch, position, text)
            yield msgspec.structs.replace(event, verified=verified, source=source)

    def summarize(self, element: str, fields: Mapping[bytes, bytes], size: int) -> ElementSummary:
        """Return what is counted of an element: some ten times as fast as `read`. Never raises for what stands in it.

        A broken element, and a broken event of one, is left out and counted as skipped.
        """
        found = self._open(element, fields)
        if found is None:
            return ElementSummary(element, size, ())
        worker, texts = found
        if self._keyring.has_signing_keys:
            batch = _read_signature(fields, self._keyring.namespace, worker, texts)
            if batch is None or not is_genuine(batch, self._keyring):
                return ElementSummary(element, size, (), unverified=len(texts))
        events = (self._summarize_event(f"{element}.{position}", text) for position, text in enumerate(texts))
        return ElementSummary(element, size, [event for event in events if event is not None])

    def _summarize_event(self, seq: str, text: bytes) -> EventSummary | None:
        try:
            event = _summary_decoder.decode(text)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            self._skipped.add(seq, error_text(error))
            return None
        return event if event.name in COUNTED else None

    def _open(self, element: str, fields: Mapping[bytes, bytes]) -> tuple[str, list[bytes]] | None:
        """The worker and the events; None for an element that has none, which is counted as skipped."""
        try:
            return fields[b"w"].decode(), _split_events(inflate(fields[b"z"], self._max_bytes))
        except KeyError as error:
            self._skipped.add(element, f"it has no field {error_text(error)}")
        except (BrokenElement, UnicodeDecodeError) as error:
            self._skipped.add(element, error_text(error))
        return None


def inflate(data: bytes, max_bytes: int) -> bytes:
    """Return the inflated bytes.

    Raises:
        BrokenElement: they are not deflated, are cut, or are more than `max_bytes`, of which no more are inflated.
    """
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise BrokenElement(f"it cannot be inflated ({error_text(error)})") from None
    if len(body) > max_bytes:
        raise BrokenElement(too_large_message(f"more than {max_bytes} bytes inflated"))
    if not inflater.eof:
        raise BrokenElement("it cannot be inflated (its end is missing)")
    return body


def too_large_message(size: str) -> str:
    """Return the reason for an element beyond the limit."""
    return f"it has {size}, more than journal_element_bytes allows"


def _split_events(body: bytes) -> list[bytes]:
    try:
        return [bytes(text) for text in _events_decoder.decode(body)]
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BrokenElement(f"it is not a JSON array of events ({error_text(error)})") from None


def _read_signature(
    fields: Mapping[bytes, bytes], namespace: str, worker: str, events: list[bytes]
) -> SignedBatch | None:
    """What was signed; None for a batch without a signature, or with one that is none."""
    name = _BATCH_NAME.fullmatch(fields.get(b"b", b""))
    signature = fields.get(b"s", b"")
    if name is None or not signature.isascii():
        return None
    return SignedBatch(
        namespace=namespace,
        writer_id=name[1].decode(),
        batch_number=int(name[2]),
        worker=worker,
        event_hashes=hash_events(events),
        signature=signature.decode(),
    )
