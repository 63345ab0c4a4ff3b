"""The journal: what was asked, decided and answered, event by event. The reading side, and the shape of an event.

An event is one of the catalogue (`ecs_queue.telemetry.EVENTS`); `data` has its fields and, beyond what logs may show,
what only the journal keeps. Those that speak of one request, in the order in which they usually come:

- `request.submitted`: `queue`, `owner`, `nonce`, `namespace`, and `envelope`, the request as JSON
- `request.received`, `launch.called` (`launch`, `attempt`, and `launch_spec`, the frozen run_task arguments as JSON,
  and `target`), `launch.started` and the other `launch.*`
- `decision.*`: the inputs of a pure rule of `ecs_queue.protocol.decisions` and what it decided; `decision.poll` has
  under `task` the task as ECS showed it, with all its times
- `task.*`, `stop.*`, and at the end `request.ended`

Secrets are replaced by `redact.REDACTED` on the way in; a payload that is sealed (`encryption_keys`) is kept sealed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

#: The version of what events look like. An older one is brought up to it when it is read.
EVENT_VERSION = 1


class JournalEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `seq` orders all events of a journal (`<ms>-<n>.<i>`, see `seq_key`); `at`: server's seconds since
    the epoch; `name`: of the catalogue; `id`: the request, "" for none; `worker`: who wrote it, "" for a client."""

    v: int
    seq: str
    at: float
    name: str
    id: str = ""
    worker: str = ""
    data: dict[str, Any] = {}

    def __repr__(self) -> str:
        """Without the data."""
        return f"JournalEvent(seq={self.seq!r}, name={self.name!r}, id={self.id!r})"


class JournalReader(Protocol):
    """Reads a journal. Every method may raise `JournalUnavailable`. Times are the server's seconds since the epoch."""

    def request_events(self, id: str, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """The events of one request in the order of their time; none for an unknown id. Costs what the request's own
        events cost, however long the journal is."""
        ...

    def all_events(self, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """Every event that is kept, in the order of `seq`."""
        ...

    def tail(self, after_seq: str, block_seconds: float) -> Iterator[JournalEvent]:
        """What was written after `after_seq`; waits for at most `block_seconds` when there is nothing yet. "": from
        now on the next ones that are written within the wait."""
        ...

    def last_seq(self) -> str:
        """The `seq` of the newest event; "" for an empty journal."""
        ...

    def request_envelope(self, id: str) -> bytes | None:
        """The request's envelope as it was journalled (JSON, secrets redacted or sealed), the newest of the id."""
        ...

    def close(self) -> None:
        """Give the connections back."""
        ...


def seq_sort_key(seq: str) -> tuple[int, int, int]:
    """By what `seq` sorts: the stream's milliseconds and number, and the place within the batch."""
    stream, _, place = seq.partition(".")
    milliseconds, _, number = stream.partition("-")
    return int(milliseconds or 0), int(number or 0), int(place or 0)


class EventBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Events on their way into a journal: `body`, a JSON array of events without `seq` and `worker`; `ids`, the
    requests they speak of. `writer` and `number`, which counts up, name it: appended again, it is there once."""

    writer_id: str
    batch_number: int
    worker: str
    event_count: int
    request_ids: list[str]
    body: bytes


class JournalStore(Protocol):
    """Where a journal is written. Every method may raise `JournalUnavailable`: nothing is known of its effect then."""

    def now(self) -> float:
        """The server's clock, seconds since the epoch."""
        ...

    def append(self, batch: EventBatch) -> float:
        """Keep the batch, once however often it is appended, and drop what is too old or too much. The time now."""
        ...

    def close(self) -> None:
        """Give the connections back."""
        ...
