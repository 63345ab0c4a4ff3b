"""Signatures of journal batches: they say that a process with a signing key wrote the events.

A batch has one signature: HMAC-SHA256 over the lines `ecs-queue journal v1`, the namespace, the writer's id, the number
of the batch, the number of its events and the worker, and then over the SHA-256 of each event's JSON. Because it covers
hashes, a part of a batch can be verified without the rest: an exported file has the hashes of a batch once, and of its
events only those that were selected.

A batch without a signature (an older journal, a writer without a key) and one with a wrong signature are unverified.
Readers that show events mark them; readers that act on events leave them out (`without_unverified`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

import msgspec

from ecs_queue.errors import PermanentError, UnverifiedMessage
from ecs_queue.journal.base import JournalEvent, SignedBatch
from ecs_queue.messages.keyring import Keyring, Scope

#: The form of a writer's id. It and the namespace cannot hold a line break, so no line can be taken for another.
WRITER_ID = re.compile(r"[0-9a-f]{16}")
_HASH_BYTES = 32


class UnverifiedJournal(PermanentError):  # noqa: N818
    """The events of the journal are not verified; nothing was done with them."""


def hash_events(events: Iterable[bytes | msgspec.Raw]) -> bytes:
    """Return the SHA-256 of each event's JSON, one after another."""
    return b"".join(hashlib.sha256(event).digest() for event in events)


def sign_batch(keyring: Keyring, writer_id: str, batch_number: int, worker: str, events: Sequence[bytes]) -> str:
    """Return the signature of a batch; "" when the keyring has no signing key."""
    if not keyring.has_signing_keys:
        return ""
    return keyring.make_signature(hash_events(events), _scope(writer_id, batch_number, len(events), worker))


def is_genuine(batch: SignedBatch, keyring: Keyring) -> bool:
    """Return whether one of the keyring's signing keys signed the batch, for the namespace that it names."""
    count = len(batch.event_hashes) // _HASH_BYTES
    scope = _scope(batch.writer_id, batch.batch_number, count, batch.worker)
    try:
        keyring.for_namespace(batch.namespace).check_signature(batch.event_hashes, batch.signature, scope)
    except UnverifiedMessage:
        return False
    return WRITER_ID.fullmatch(batch.writer_id) is not None and "\n" not in batch.namespace


def has_event(batch: SignedBatch, position: int, text: bytes) -> bool:
    """Return whether the event with this JSON stands at this position of the batch."""
    start = position * _HASH_BYTES
    return batch.event_hashes[start : start + _HASH_BYTES] == hashlib.sha256(text).digest()


def without_unverified(events: Iterable[JournalEvent]) -> list[JournalEvent]:
    """Return the events on which a reader may act: without signing keys here all, otherwise the verified ones."""
    return [event for event in events if event.verified is not False]


def unverified_message(subject: str) -> str:
    """Return the sentence that refuses unverified events."""
    return (
        f"{subject}: what the journal has of it is not signed with a key of signing_keys, so any process that can "
        "write to the server may have written it; nothing was done. If you know that it is genuine (written before "
        "there were keys, or with a key that was removed), give --trust-unsigned"
    )


def _scope(writer_id: str, batch_number: int, event_count: int, worker: str) -> Scope:
    return ("journal", writer_id, str(batch_number), str(event_count), worker)
