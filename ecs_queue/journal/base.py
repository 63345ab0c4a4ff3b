"""The shape of a journal event, and the protocols to read and to write a journal.

The journal keeps what was requested, decided and returned by ECS, event by event. An event is one of the catalogue
(`ecs_queue.telemetry.EVENTS`). Its `data` has the fields of the catalogue and, beyond what logs may show, those that
only the journal keeps. The events of one request, in the order in which they usually come:

- `request.submitted`: `queue`, `owner`, `nonce`, `namespace`, and `envelope`, the request as JSON
- `request.received`, `launch.called` (`launch`, `attempt`, `launch_spec`: the frozen run_task arguments as JSON, and
  `target`), `launch.started` and the other `launch.*`
- `decision.*`: the inputs of a pure rule of `ecs_queue.protocol.decisions` and its decision; `decision.poll` has under
  `task` the task as ECS described it, with all its times
- `task.*`, `stop.*`, and at the end `request.ended`

Secrets are replaced by `redact.REDACTED` before they are written. An encrypted payload (`encryption_keys`) stays
encrypted.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

#: The version of the events' format. An older event is upgraded when it is read.
EVENT_VERSION = 1


class JournalEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event.

    Attributes:
        v: version of the format.
        seq: orders all events of a journal: `<ms>-<n>.<i>`, compared with `seq_sort_key`.
        at: seconds since the epoch, by the ledger's server.
        name: a name of the catalogue.
        id: the request; "" for none.
        worker: the worker that wrote the event; "" for a client.
        data: the event's fields.
    """

    v: int
    seq: str
    at: float
    name: str
    id: str = ""
    worker: str = ""
    data: dict[str, Any] = {}

    def __repr__(self) -> str:
        """Leave out the data."""
        return f"JournalEvent(seq={self.seq!r}, name={self.name!r}, id={self.id!r})"


class JournalReader(Protocol):
    """Reads a journal. Times are seconds since the epoch by the server.

    Raises:
        JournalUnavailable: from every method, when the journal cannot be read.
    """

    def request_events(self, id: str, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """Yield the events of one request in the order of their time; none for an unknown id.

        The cost depends on the request's own events, not on the length of the journal.
        """
        ...

    def all_events(self, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """Yield every event that is kept, in the order of `seq`."""
        ...

    def tail(self, after_seq: str, block_seconds: float) -> Iterator[JournalEvent]:
        """Yield the events after `after_seq`; if there are none, wait up to `block_seconds` for new ones.

        Args:
            after_seq: the last `seq` that the caller has; "" yields only events that are written during the wait.
            block_seconds: maximum wait.
        """
        ...

    def last_seq(self) -> str:
        """Return the `seq` of the newest event; "" for an empty journal."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def seq_sort_key(seq: str) -> tuple[int, int, int]:
    """Return the sort key of a `seq`: the stream's milliseconds and number, and the position within the batch."""
    stream, _, position = seq.partition(".")
    milliseconds, _, number = stream.partition("-")
    return int(milliseconds or 0), int(number or 0), int(position or 0)


def sort_by_time(events: Iterable[JournalEvent]) -> Sequence[JournalEvent]:
    """Return one request's events by their time.

    Several processes wrote them, so their order in the journal is only approximate. Events of one process with the
    same time keep their order.
    """
    return sorted(events, key=operator.attrgetter("at"))


def newest_envelope(events: Iterable[JournalEvent]) -> bytes | None:
    """Return the newest envelope among a request's events, as JSON with secrets redacted; None if there is none."""
    found = None
    for event in events:
        if event.name == "request.submitted" and event.data.get("envelope") is not None:
            found = event.data["envelope"]
    return None if found is None else msgspec.json.encode(found)


class EventBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Events to append to a journal.

    Attributes:
        writer_id, batch_number: identify the batch, so that appending it again changes nothing; the number increases.
        worker: the worker that writes; "" for a client.
        event_count: number of events in `body`.
        request_ids: the requests that the events are about.
        body: a JSON array of events without `seq` and `worker`.
    """

    writer_id: str
    batch_number: int
    worker: str
    event_count: int
    request_ids: list[str]
    body: bytes


class JournalStore(Protocol):
    """Writes a journal.

    Raises:
        JournalUnavailable: from every method. The call may or may not have had its effect.
    """

    def now(self) -> float:
        """Return the server's time, seconds since the epoch."""
        ...

    def append(self, batch: EventBatch) -> float:
        """Append the batch, drop what is too old or exceeds the size limit, and return the server's time.

        A batch that is appended again is stored once.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
