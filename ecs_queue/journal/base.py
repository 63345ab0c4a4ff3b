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

What the journal hides of a payload is replaced by `redact.REDACTED` before it is written. An encrypted payload
(`encryption_keys`) stays encrypted.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Protocol

import msgspec

#: The version of the events' format. An older event is upgraded when it is read.
EVENT_VERSION = 1


#: The latest time of an event: the end of the year 9999. Seconds since the epoch.
MAX_TIME = 253_402_300_799


class SignedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch's signature covers, and the signature (see `journal.batches`).

    Attributes:
        namespace: the namespace whose journal it was written to.
        writer_id, batch_number, worker: as in `EventBatch`.
        event_hashes: the SHA-256 of each event's JSON, one after another.
        signature: `KEY-ID:HEX`.
    """

    namespace: str
    writer_id: str
    batch_number: int
    worker: str
    event_hashes: bytes
    signature: str

    @property
    def name(self) -> str:
        """What names it in an exported file."""
        return f"{self.writer_id}.{self.batch_number}"


class EventSource(msgspec.Struct, frozen=True):
    """Where a signed event comes from: its batch, its position there, and its JSON exactly as it was signed."""

    batch: SignedBatch
    position: int
    text: bytes

    def __repr__(self) -> str:
        """Leave out the text."""
        return f"EventSource(batch={self.batch.name}, position={self.position})"


class StoredEvent(msgspec.Struct, kw_only=True):
    """The members of an event that are stored; attributes as in `JournalEvent`."""

    v: int
    seq: str
    at: Annotated[float, msgspec.Meta(ge=0, le=MAX_TIME)]
    name: str
    id: str = ""
    worker: str = ""
    data: dict[str, Any] = {}

    def __repr__(self) -> str:
        """Leave out the data."""
        return f"StoredEvent(seq={self.seq!r}, name={self.name!r}, id={self.id!r})"


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
        verified: whether a process with a signing key wrote it; None where no signing_keys are set.
        source: of an event with a signature, what an export needs to keep it; else None.
    """

    v: int
    seq: str
    at: float
    name: str
    id: str = ""
    worker: str = ""
    data: dict[str, Any] = {}
    verified: bool | None = None
    source: EventSource | None = None

    def __repr__(self) -> str:
        """Leave out the data."""
        return f"JournalEvent(seq={self.seq!r}, name={self.name!r}, id={self.id!r})"


#: The members that are shown and exported, in their order.
_SHOWN_MEMBERS = ("v", "seq", "at", "name", "id", "worker", "data")


def event_to_dict(event: JournalEvent) -> dict[str, Any]:
    """Return the event's members for JSON."""
    return {name: getattr(event, name) for name in _SHOWN_MEMBERS}


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


class SkippedEvents:
    """Counts what a reader skipped because it is no event: one broken element must not hide the others."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}

    def add(self, place: str, reason: str) -> None:
        """Count the element or event at this place of the journal, once; `reason` quotes nothing of it."""
        if len(self._places) < _MAX_SKIPPED:
            self._places.setdefault(place, reason)

    def __len__(self) -> int:
        """Return the number of skipped elements and events, at most 10,000."""
        return len(self._places)

    def message(self) -> str:
        """Return a sentence for the user; "" when nothing was skipped."""
        if not self._places:
            return ""
        place, reason = next(iter(self._places.items()))
        number = f"{len(self._places)}{' or more' if len(self._places) == _MAX_SKIPPED else ''}"
        return f"the journal has {number} broken entries, which are skipped; the first is {place}: {reason}"


_MAX_SKIPPED = 10_000


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
        signature: see `journal.batches`; "" without a signing key.
    """

    writer_id: str
    batch_number: int
    worker: str
    event_count: int
    request_ids: list[str]
    body: bytes
    signature: str = ""

    def __repr__(self) -> str:
        """Leave out the body."""
        return f"EventBatch(writer_id={self.writer_id!r}, batch_number={self.batch_number}, events={self.event_count})"


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
