"""Reads exported events back into a journal."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable

import msgspec

from ecs_queue.journal.base import Batch, JournalEvent, JournalStore
from ecs_queue.journal.redact import redact_json

_AT_ONCE = 500


def restore(events: Iterable[JournalEvent], store: JournalStore) -> None:
    """Append the events in their order; each keeps its time, its worker and its data. Secrets are redacted.

    JournalUnavailable: some may have been appended.
    """
    writer = secrets.token_hex(8)
    rest = iter(events)
    for number in itertools.count(1):
        some = list(itertools.islice(rest, _AT_ONCE))
        if not some:
            return
        body = b"[" + b",".join(redact_json(_without_place(event)) for event in some) + b"]"
        ids = list(dict.fromkeys(event.id for event in some if event.id))
        store.append(Batch(writer=writer, number=number, worker="", events=len(some), ids=ids, body=body))


def _without_place(event: JournalEvent) -> bytes:
    built: dict[str, object] = msgspec.to_builtins(event)
    del built["seq"]
    return msgspec.json.encode(built)
