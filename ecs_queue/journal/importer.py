"""Reads exported events back into a journal."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable

import msgspec

from ecs_queue.journal.base import EventBatch, JournalEvent, JournalStore
from ecs_queue.journal.redact import redact_json

_BATCH_SIZE = 500


def import_events(events: Iterable[JournalEvent], store: JournalStore) -> None:
    """Append the events in their order; each keeps its time, its worker and its data. Secrets are redacted.

    JournalUnavailable: some may have been appended.
    """
    writer = secrets.token_hex(8)
    rest = iter(events)
    for number in itertools.count(1):
        some = list(itertools.islice(rest, _BATCH_SIZE))
        if not some:
            return
        body = b"[" + b",".join(redact_json(_without_seq(event)) for event in some) + b"]"
        ids = list(dict.fromkeys(event.id for event in some if event.id))
        store.append(
            EventBatch(
                writer_id=writer, batch_number=number, worker="", event_count=len(some), request_ids=ids, body=body
            )
        )


def _without_seq(event: JournalEvent) -> bytes:
    built: dict[str, object] = msgspec.to_builtins(event)
    del built["seq"]
    return msgspec.json.encode(built)
