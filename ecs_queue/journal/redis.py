"""The journal in Redis or Valkey, on the ledger's server: a stream of batches, bounded in bytes and in age.

An element holds many events, deflated: together they take about a tenth of what they would take alone, and one round
trip. Where a request is spoken of is kept beside the stream (append.lua has the keys), so that one request's events
are read without the others'.
"""

from __future__ import annotations

import hashlib
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
from ecs_queue.journal.base import EventBatch, JournalEvent, seq_sort_key
from ecs_queue.journal.memory import newest_envelope, sort_by_time
from ecs_queue.journal.versions import decode_event

#: Elements that are read in one round trip.
_PAGE_SIZE = 20
#: How far a time that a writer worked out may lie after the server's own. Seconds.
_MAX_CLOCK_SKEW = 60.0
#: Ids that a request may have; anything else (an id that somebody mistyped) is not looked up.
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,48}")

#: An element's id and its fields.
_StreamEntry = tuple[bytes, dict[bytes, bytes]]


class RedisJournal:
    """A `JournalReader` and a `JournalStore`. Thread-safe.

    `most_bytes`: about what it may take in the server's memory; `retention`: seconds; both are kept with every append.
    """

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        *,
        max_bytes: int,
        retention_seconds: float,
        max_block_seconds: float = 2.0,
    ) -> None:
        """`longest_wait`: of one blocking read, in seconds; below the client's socket time-out."""
        self._redis: Any = client  # redis-py's own types mix its sync and async answers
        self._prefix = f"{namespace}:j:"
        self._stream = self._prefix + "s"
        self._limits = (max_bytes, retention_seconds)
        self._max_block_seconds = max_block_seconds
        self._script = (files("ecs_queue.journal") / "append.lua").read_text()
        self._script_sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    def now(self) -> float:
        """See `JournalStore.now`."""
        with _wrap_errors():
            seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6

    def append(self, batch: EventBatch) -> float:
        """See `JournalStore.append`."""
        ids = " ".join(id for id in batch.request_ids if _REQUEST_ID.fullmatch(id))
        body = zlib.compress(batch.body, 1)
        named = (batch.writer_id, batch.batch_number, batch.worker, batch.event_count)
        arguments = (self._prefix, *self._limits, *named, body, ids)
        with _wrap_errors():
            try:
                now = self._redis.evalsha(self._script_sha, 0, *arguments)
            except redis.exceptions.NoScriptError:  # a new or restarted server
                self._redis.script_load(self._script)
                now = self._redis.evalsha(self._script_sha, 0, *arguments)
        return float(now)

    def request_events(self, id: str, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """See `JournalReader.events`."""
        with _wrap_errors():
            elements = self._redis.lrange(f"{self._prefix}r:{id}", 0, -1)
            pipe = self._redis.pipeline(transaction=False)
            for element in elements:
                pipe.xrange(self._stream, element, element)
            found = pipe.execute()
        its = [event for page in found for event in _decode_entries(page) if event.id == id]
        return (event for event in sort_by_time(its) if _is_within(event, since, until))

    def all_events(self, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """See `JournalReader.all`."""
        # An event is written after it has happened, but for what clocks are apart: no older element has any.
        start = "-" if since is None else str(max(0, int((since - _MAX_CLOCK_SKEW) * 1000)))
        while page := self._read_page(start):
            for event in _decode_entries(page):
                if _is_within(event, since, until):
                    yield event
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
            answer = self._redis.xread({self._stream: element or "$"}, count=_PAGE_SIZE, block=milliseconds)
        for _, page in answer or ():
            yield from _decode_entries(page)

    def last_seq(self) -> str:
        """See `JournalReader.last_seq`."""
        with _wrap_errors():
            found = self._redis.xrevrange(self._stream, count=1)
        return next(reversed([event.seq for event in _decode_entries(found)]), "")

    def pages_newest_first(self) -> Iterator[list[JournalEvent]]:
        """All events from the newest on, in pages; each page is in order."""
        end = "+"
        while True:
            with _wrap_errors():
                page = self._redis.xrevrange(self._stream, end, "-", count=_PAGE_SIZE)
            if not page:
                return
            yield list(_decode_entries(page[::-1]))
            end = f"({page[-1][0].decode()}"

    def size(self) -> tuple[int, int]:
        """How many elements, and about how many bytes it takes."""
        with _wrap_errors():
            elements, size = self._redis.xlen(self._stream), self._redis.get(f"{self._prefix}bytes")
        return int(elements), int(size or 0)

    def request_envelope(self, id: str) -> bytes | None:
        """See `JournalReader.request`."""
        return newest_envelope(self.request_events(id))

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()

    def _read_page(self, start: str) -> Sequence[_StreamEntry]:
        with _wrap_errors():
            found: Sequence[_StreamEntry] = self._redis.xrange(self._stream, start, "+", count=_PAGE_SIZE)
        return found


def _decode_entries(page: Sequence[_StreamEntry]) -> Iterator[JournalEvent]:
    for element, fields in page:
        stream_id, worker = element.decode(), fields[b"w"].decode()
        for place, raw in enumerate(msgspec.json.decode(zlib.decompress(fields[b"z"]))):
            yield decode_event({**raw, "seq": f"{stream_id}.{place}", "worker": raw.get("worker", worker)})


def _is_within(event: JournalEvent, since: float | None, until: float | None) -> bool:
    return (since is None or event.at >= since) and (until is None or event.at <= until)


@contextmanager
def _wrap_errors() -> Iterator[None]:
    """What redis-py raises, as JournalUnavailable; the URL and its password are in no message."""
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as error:
        raise JournalUnavailable(f"the journal failed: {error}; check ledger_url and the server") from error
