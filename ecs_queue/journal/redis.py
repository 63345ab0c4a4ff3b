"""The journal in Redis or Valkey, on the ledger's server: a stream of batches, bounded in bytes and in age.

An element holds many events, deflated: together they take about a tenth of their separate size, and one round trip. An
index beside the stream (append.lua lists the keys) names the elements of each request, so that one request's events
are read without the others. The server does not send an element that is too large (read.lua).
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import redis
import redis.exceptions

from ecs_queue.error_text import error_text
from ecs_queue.errors import JournalUnavailable
from ecs_queue.journal.base import EventBatch, JournalEvent, SkippedEvents, seq_sort_key, sort_by_time
from ecs_queue.journal.elements import ElementReader, too_large_message
from ecs_queue.journal.last_hour import ElementSummary
from ecs_queue.ledger.needed_rights import find_denied
from ecs_queue.ledger.redis_script import is_wrong_type
from ecs_queue.messages.keyring import Keyring
from ecs_queue.server_keys import journal_prefix, slot_key
from ecs_queue.server_rights import LEDGER_URL_KEY, RIGHTS_ADVICE, describe_failure, find_missing_right

#: Number of elements read in one round trip, and the bytes after which it ends earlier.
_PAGE_SIZE, _PAGE_BYTES = 20, 4 * 1024 * 1024
#: Maximum number of elements of one request that are read, the newest: an index can be written by others.
_MAX_REQUEST_ELEMENTS = 10_000
#: About the maximum number of bytes of one request's events that are read.
_MAX_REQUEST_BYTES = 32 * 1024 * 1024
#: How often `tail` looks for new elements. Seconds.
_TAIL_INTERVAL = 0.2
#: Maximum amount by which a writer's estimate of the server's time may be too high. Seconds.
_MAX_CLOCK_SKEW = 60.0
#: Valid request ids. Other ids (mistyped by a user) are not indexed.
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,48}")
_ELEMENT_ID = re.compile(rb"[0-9]{1,19}-[0-9]{1,19}")

_READING_ADVICE = f"the journal can be read with the rights of an operator: {RIGHTS_ADVICE}"

#: An element's id, its size, and its fields, which are missing when it is too large.
_Element = Sequence[Any]


class RedisJournal:
    """A `JournalReader` and a `JournalStore`. Thread-safe."""

    def __init__(
        self,
        client: redis.Redis,
        keyring: Keyring,
        *,
        max_bytes: int,
        max_element_bytes: int,
        retention_seconds: float,
    ) -> None:
        """Use `client`.

        Args:
            client: a client with a socket time-out.
            keyring: verifies what is read; its namespace begins every key.
            max_bytes: about the maximum size in the server's memory. Every append enforces it.
            max_element_bytes: maximum size of an element, stored or inflated. Larger ones are skipped.
            retention_seconds: maximum age of an event. Every append enforces it.
        """
        self._redis: Any = client  # redis-py's types mix sync and async results
        self._prefix = journal_prefix(keyring.namespace)
        self._stream = self._prefix + "s"
        self._slot_keys = [slot_key(self._prefix)]
        self._limits = (max_bytes, retention_seconds)
        self._max_element_bytes = max_element_bytes
        self.skipped = SkippedEvents()
        self._elements = ElementReader(keyring, max_element_bytes, self.skipped)
        self._append_script, self._read_script = (
            self._redis.register_script((files("ecs_queue.journal") / name).read_text())
            for name in ("append.lua", "read.lua")
        )

    def now(self) -> float:
        """See `JournalStore.now`."""
        with _wrap_errors():
            seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6

    def is_readable(self) -> bool:
        """Return whether this user of the server may read it; asked without an attempt, which the server would log."""
        with _wrap_errors():
            rights = [("LRANGE", f"{self._prefix}r:"), ("XRANGE", self._stream)]
            return not find_denied(self._redis, rights, self._prefix)

    def append(self, batch: EventBatch) -> float:
        """See `JournalStore.append`."""
        ids = " ".join(id for id in batch.request_ids if _REQUEST_ID.fullmatch(id))
        header = (batch.writer_id, batch.batch_number, batch.worker, batch.event_count)
        arguments = (self._prefix, *self._limits, *header, zlib.compress(batch.body, 1), ids, batch.signature)
        with _wrap_errors():
            return float(self._append_script(keys=self._slot_keys, args=arguments))

    def request_events(self, id: str, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """See `JournalReader.request_events`."""
        index = self._read_index(id)
        elements = [element for element in dict.fromkeys(index) if _ELEMENT_ID.fullmatch(element)]
        events = sort_by_time(self._decode_newest(id, elements))
        return (event for event in events if _is_within(event, since, until))

    def all_events(self, since: float | None = None, until: float | None = None) -> Iterator[JournalEvent]:
        """See `JournalReader.all_events`."""
        # An event is appended after it happened, apart from clock skew: no older element can have such events.
        start = "-" if since is None else str(max(0, int((since - _MAX_CLOCK_SKEW) * 1000)))
        while page := self._read("XRANGE", start, "+", _PAGE_SIZE):
            yield from (event for event in self._decode(page) if _is_within(event, since, until))
            start = _after(page)

    def tail(self, after_seq: str, block_seconds: float) -> Iterator[JournalEvent]:
        """See `JournalReader.tail`."""
        after, has_new = seq_sort_key(after_seq), False
        start = after_seq.partition(".")[0] or f"({self.last_seq().partition('.')[0] or '0-0'}"
        deadline = time.monotonic() + block_seconds
        while True:
            page = self._read("XRANGE", start, "+", _PAGE_SIZE)
            for event in self._decode(page):
                if seq_sort_key(event.seq) > after:
                    has_new = True
                    yield event
            start = _after(page) if page else start
            if has_new or time.monotonic() >= deadline:
                return
            time.sleep(_TAIL_INTERVAL)

    def last_seq(self) -> str:
        """See `JournalReader.last_seq`."""
        newest = self._read("XREVRANGE", "+", "-", 1)
        seq = max((event.seq for event in self._decode(newest)), key=seq_sort_key, default="")
        return seq or (f"{newest[0][0].decode()}.0" if newest else "")

    def pages_newest_first(self) -> Iterator[list[JournalEvent]]:
        """Yield all events in pages, the newest page first; the events within a page are in order.

        The first page is one element, and each is twice the one before: who wants a few events decodes few.
        """
        end, size = "+", 1
        while page := self._read("XREVRANGE", end, "-", size):
            yield list(self._decode(page[::-1]))
            end, size = _after(page), min(2 * size, _PAGE_SIZE)

    def summaries_newest_first(self) -> Iterator[ElementSummary]:
        """Yield what `journal.last_hour` counts of each element, the newest element first."""
        end, size = "+", 1
        while page := self._read("XREVRANGE", end, "-", size):
            for element, stored_bytes, *found in page:
                if found:
                    fields = dict(zip(found[0][::2], found[0][1::2], strict=True))
                    yield self._elements.summarize(element.decode(), fields, int(stored_bytes))
                else:
                    self.skipped.add(element.decode(), too_large_message(f"{stored_bytes} bytes"))
            end, size = _after(page), min(2 * size, _PAGE_SIZE)

    def size(self) -> tuple[int, int]:
        """Return the number of elements and about the number of bytes in the server's memory."""
        with _wrap_errors():
            return int(self._redis.xlen(self._stream)), int(self._redis.get(f"{self._prefix}bytes") or 0)

    def close(self) -> None:
        """See `JournalReader.close`."""
        self._redis.close()

    def _read_index(self, id: str) -> list[bytes]:
        """The elements with events of a request; none if another program has put something else there."""
        with _wrap_errors(_READING_ADVICE):
            try:
                return list(self._redis.lrange(f"{self._prefix}r:{id}", -_MAX_REQUEST_ELEMENTS, -1))
            except redis.exceptions.ResponseError as error:
                if not is_wrong_type(error):
                    raise
        self.skipped.add("0-0", f"the index of {id} is no list")
        return []

    def _read(self, *arguments: str | bytes | int) -> Sequence[_Element]:
        """The elements that read.lua finds; never more than a page."""
        with _wrap_errors(_READING_ADVICE):
            found: Sequence[_Element] = self._read_script(
                keys=self._slot_keys, args=(self._stream, self._max_element_bytes, _PAGE_BYTES, *arguments)
            )
        return found

    def _decode_newest(self, id: str, elements: Sequence[bytes]) -> Sequence[JournalEvent]:
        """The events of a request in these elements, without the oldest ones when they are too many to be held."""
        newest_first: list[list[JournalEvent]] = []
        limit = self._elements.decoded_bytes + _MAX_REQUEST_BYTES
        for end in range(len(elements), 0, -_PAGE_SIZE):
            for element in reversed(self._read("ids", *elements[max(0, end - _PAGE_SIZE) : end])):
                if self._elements.decoded_bytes > limit:
                    self.skipped.add(element[0].decode(), f"{id} has more than {_MAX_REQUEST_BYTES} bytes of events")
                    break
                newest_first.append(list(self._decode([element], id)))
        return [event for events in reversed(newest_first) for event in events]

    def _decode(self, page: Sequence[_Element], only_id: str = "") -> Iterator[JournalEvent]:
        for element, size, *found in page:
            if not found:
                self.skipped.add(element.decode(), too_large_message(f"{size} bytes"))
                continue
            fields = dict(zip(found[0][::2], found[0][1::2], strict=True))
            yield from self._elements.read(element.decode(), fields, only_id)


def _after(page: Sequence[_Element]) -> str:
    """The end of the next page's range."""
    return f"({page[-1][0].decode()}"


def _is_within(event: JournalEvent, since: float | None, until: float | None) -> bool:
    return (since is None or event.at >= since) and (until is None or event.at <= until)


@contextmanager
def _wrap_errors(rights_advice: str = RIGHTS_ADVICE) -> Iterator[None]:
    """Raise redis-py's errors as JournalUnavailable or MissingRight, without the URL and its password."""
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as error:
        missing_right = find_missing_right(error, "journal", "the journal, {NAMESPACE}:j:*", rights_advice)
        if missing_right is not None:
            raise missing_right from error
        text = error_text(error).removesuffix(".")
        raise JournalUnavailable(f"the journal failed: {describe_failure(text, LEDGER_URL_KEY)}") from error
