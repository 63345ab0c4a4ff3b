"""The journal in Redis or Valkey, on the ledger's server: a stream of batches, bounded in bytes and in age.

An element holds many events, deflated: together they take about a tenth of their separate size, and one round trip. An
index beside the stream (append.lua lists the keys) names the elements of each request, so that one request's events
are read without the others.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import msgspec
import redis
import redis.exceptions

from ecs_queue.errors import JournalUnavailable
from ecs_queue.journal.base import EventBatch, JournalEvent, seq_sort_key, sort_by_time
from ecs_queue.journal.codec import decode_event

#: Number of elements read in one round trip.
_PAGE_SIZE = 20
#: Maximum amount by which a writer's estimate of the server's time may be too high. Seconds.
_MAX_CLOCK_SKEW = 60.0
#: Valid request ids. Other ids (mistyped by a user) are not indexed.
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,48}")

#: An element's id and its fields.
_StreamEntry = tuple[bytes, dict[bytes, bytes]]


class RedisJournal:
    """A `JournalReader` and a `JournalStore`. Thread-safe."""

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        *,
        max_bytes: int,
        retention_seconds: float,
        max_block_seconds: float = 2.0,
    ) -> None:
        """Use `client`.

        Args:
            client: a client with a socket time-out.
            namespace: begins every key.
            max_bytes: about the maximum size in the server's memory. Every append enforces it.
            retention_seconds: maximum age of an event. Every append enforces it.
            max_block_seconds: maximum time of one blocking read; below the client's socket time-out.
        """
        self._redis: Any = client  # redis-py's types mix sync and async results
        self._prefix = f"{namespace}:j:"
        self._stream = self._prefix + "s"
        self._limits = (max_bytes, retention_seconds)
        self._max_block_seconds = max_block_seconds
        self._append_script = self._redis.register_script((files("ecs_queue.journal") / "append.lua").read_text())

    def now(self) -> float:
        """See `JournalStore.now`."""
        with _wrap_errors():
            seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6

    def append(self, batch: EventBatch) -> float:
        """See `JournalStore.append`."""
        ids = " ".join(id for id in batch.request_ids if _REQUEST_ID.fullmatch(id))
        header = (batch.writer_id, batch.batch_number, batch.worker, batch.event_count)
        arguments = (self._prefix, *self._limits, *header, zlib.compress(batch.body, 1), ids)
        with _wrap_errors():
            return float(self._append_script(args=arguments))

    def request_events(self, id: str, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """See `JournalReader.request_events`."""
        with _wrap_errors():
            elements = self._redis.lrange(f"{self._prefix}r:{id}", 0, -1)
            pipe = self._redis.pipeline(transaction=False)
            for element in elements:
                pipe.xrange(self._stream, element, element)
            found = pipe.execute()
        events = sort_by_time(event for page in found for event in _decode_entries(page) if event.id == id)
        return (event for event in events if _is_within(event, since, until))

    def all_events(self, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """See `JournalReader.all_events`."""
        # An event is appended after it happened, apart from clock skew: no older element can have such events.
        start = "-" if since is None else str(max(0, int((since - _MAX_CLOCK_SKEW) * 1000)))
        while page := self._read_page(start):
            yield from (event for event in _decode_entries(page) if _is_within(event, since, until))
            start = f"({page[-1][0].decode()}"

    def tail(self, after_seq: str, block_seconds: float) -> Iterator[JournalEvent]:
        """See `JournalReader.tail`."""
        after = seq_sort_key(after_seq)
        element = after_seq.partition(".")[0]
        if element:
            with _wrap_errors():
                rest = self._redis.xrange(self._stream, element, element)
            yield from (event for event in _decode_entries(rest) if seq_sort_key(event.seq) > after)
        milliseconds = max(1, int(1000 * min(block_seconds, self._max_block_seconds)))
        with _wrap_errors():
            found = self._redis.xread({self._stream: element or "$"}, count=_PAGE_SIZE, block=milliseconds)
        for _, page in found or ():
            yield from _decode_entries(page)

    def last_seq(self) -> str:
        """See `JournalReader.last_seq`."""
        with _wrap_errors():
            found = self._redis.xrevrange(self._stream, count=1)
        return max((event.seq for event in _decode_entries(found)), key=seq_sort_key, default="")

    def pages_newest_first(self) -> Iterator[list[JournalEvent]]:
        """Yield all events in pages, the newest page first; the events within a page are in order."""
        end = "+"
        while True:
            with _wrap_errors():
                page = self._redis.xrevrange(self._stream, end, "-", count=_PAGE_SIZE)
            if not page:
                return
            yield list(_decode_entries(page[::-1]))
            end = f"({page[-1][0].decode()}"

    def size(self) -> tuple[int, int]:
        """Return the number of elements and about the number of bytes in the server's memory."""
        with _wrap_errors():
            return int(self._redis.xlen(self._stream)), int(self._redis.get(f"{self._prefix}bytes") or 0)

    def close(self) -> None:
        """See `JournalReader.close`."""
        self._redis.close()

    def _read_page(self, start: str) -> Sequence[_StreamEntry]:
        with _wrap_errors():
            found: Sequence[_StreamEntry] = self._redis.xrange(self._stream, start, "+", count=_PAGE_SIZE)
        return found


def _decode_entries(page: Sequence[_StreamEntry]) -> Iterator[JournalEvent]:
    for element, fields in page:
        stream_id, worker = element.decode(), fields[b"w"].decode()
        for position, raw in enumerate(msgspec.json.decode(zlib.decompress(fields[b"z"]))):
            yield decode_event({**raw, "seq": f"{stream_id}.{position}", "worker": raw.get("worker", worker)})


def _is_within(event: JournalEvent, since: float | None, until: float | None) -> bool:
    return (since is None or event.at >= since) and (until is None or event.at <= until)


@contextmanager
def _wrap_errors() -> Iterator[None]:
    """Raise redis-py's errors as JournalUnavailable, without the URL and its password."""
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as error:
        raise JournalUnavailable(f"the journal failed: {error}; check ledger_url and the server") from error
