"""Encodes and signs what a process writes to the journal, as its configuration says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ecs_queue.errors import InvalidRequest, UndecodableMessage
from ecs_queue.journal.base import EventBatch
from ecs_queue.journal.batches import sign_batch
from ecs_queue.journal.codec import encode_event
from ecs_queue.journal.redact import Redaction
from ecs_queue.messages.envelope import decode_request, encode
from ecs_queue.messages.keyring import NO_KEYS, Keyring

if TYPE_CHECKING:
    from ecs_queue.config import Config

#: A batch is one element of the journal: maximum number of events, and the number of bytes that completes it.
MAX_BATCH_EVENTS, BATCH_BYTES = 500, 256 * 1024


class EventEncoder:
    """Makes events and batches. Immutable."""

    def __init__(
        self,
        keyring: Keyring = NO_KEYS,
        *,
        redaction: Redaction = "environment",
        max_element_bytes: int = 4 * BATCH_BYTES,
    ) -> None:
        """Sign and seal with `keyring`.

        Args:
            keyring: without a signing key, batches are not signed; without an encryption key, nothing is sealed.
            redaction: what is hidden of a payload that is not sealed. With an encryption key, all of it.
            max_element_bytes: maximum size of a batch; readers skip larger ones.
        """
        self._keyring = keyring
        self._redaction: Redaction = "arguments" if keyring.has_encryption_keys else redaction
        self._max_event_bytes = max_element_bytes - BATCH_BYTES

    @property
    def redaction(self) -> Redaction:
        """What is hidden of a payload that is not sealed."""
        return self._redaction

    def encode(self, at: float, name: str, fields: Mapping[str, Any]) -> bytes:
        """Return one event as JSON without what the journal hides. Arguments and errors are those of `encode_event`.

        Raises:
            ValueError: the event is too large for an element.
        """
        if self._keyring.has_encryption_keys and "envelope" in fields:
            fields = {**fields, "envelope": self._seal(fields["envelope"])}
        encoded = encode_event(at, name, fields, self._redaction)
        if len(encoded) > self._max_event_bytes:
            raise ValueError("the event is larger than journal_element_bytes allows")
        return encoded

    def _seal(self, body: bytes) -> bytes:
        """A client without the key may have sent it unencrypted. An envelope that is no request is hidden instead."""
        unsigned = self._keyring.without_signatures()  # the batch is signed, not the envelope
        try:
            return body if b'"sealed"' in body else encode(decode_request(body, unsigned), unsigned)
        except (UndecodableMessage, InvalidRequest):
            return body

    def build_batch(
        self, writer_id: str, batch_number: int, worker: str, events: Sequence[bytes], request_ids: Sequence[str]
    ) -> EventBatch:
        """Return the signed batch of these encoded events."""
        return EventBatch(
            writer_id=writer_id,
            batch_number=batch_number,
            worker=worker,
            event_count=len(events),
            request_ids=list(request_ids),
            body=b"[" + b",".join(events) + b"]",
            signature=sign_batch(self._keyring, writer_id, batch_number, worker, events),
        )


def open_event_encoder(config: Config) -> EventEncoder:
    """Return the encoder for a process with this configuration.

    Raises:
        ConfigError: encryption_keys are set and `cryptography` is not installed.
    """
    from ecs_queue.config.keyring import open_keyring

    return EventEncoder(
        open_keyring(config), redaction=config.journal_redaction, max_element_bytes=config.journal_element_bytes
    )
