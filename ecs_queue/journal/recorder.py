"""Writes the journal: a telemetry sink that buffers events, and a thread that encodes, redacts and appends them.

Emitting an event only appends to a list. A journal that cannot be written stops nothing: events that find no room in
the buffer are dropped, and an event reports their number.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ecs_queue.error_text import typed_error_text
from ecs_queue.errors import JournalUnavailable, MissingRight
from ecs_queue.journal.base import EventBatch, JournalStore
from ecs_queue.journal.encoder import BATCH_BYTES, MAX_BATCH_EVENTS, EventEncoder
from ecs_queue.outage_log import OutageLog
from ecs_queue.telemetry import Telemetry

#: Seconds between two appends, and after an append that failed.
_APPEND_INTERVAL, _RETRY_INTERVAL = 0.1, 1.0
#: Maximum number of buffered events; later ones are dropped.
_MAX_BUFFERED = 20_000
#: The writer yields to other threads only while fewer events than this are buffered: in a flood it would never run.
_YIELD_BELOW = 2_000
#: After `sleep(0)` the writer has the GIL again before a thread that waits for it has woken up, and that thread waits
#: for the rest of the interpreter's switch interval of 5 ms. Seconds.
_YIELD_SECONDS = 0.000_1
#: Limits of `pause_writes`: maximum seconds, and the number of buffered events that ends the pause.
_MAX_PAUSE_SECONDS, _PAUSE_BELOW = 1.0, 10_000
#: How often the writer checks whether it is still paused. Seconds.
_PAUSE_CHECK_SECONDS = 0.05

BufferedEvent = tuple[float, str, dict[str, Any]]


class JournalRecorder:
    """A `Service` that writes events to a journal. `record_event` is thread-safe and never blocks.

    Events get the server's time: the local clock, corrected by its measured offset from the server's clock.
    """

    def __init__(
        self,
        store: JournalStore,
        telemetry: Telemetry,
        worker: str = "",
        *,
        encoder: EventEncoder | None = None,
        max_buffered: int = _MAX_BUFFERED,
        yield_interval: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Subscribe to `telemetry`.

        Args:
            store: the journal.
            telemetry: the source of events; also gets the recorder's own events.
            worker: the name of the worker that writes; "" for a client.
            encoder: encodes and signs; by default without keys.
            max_buffered: maximum number of events that wait to be written.
            yield_interval: seconds of work after which the thread lets others run, because it holds the GIL; 0 means
                after every event.
            clock: monotonic seconds.
        """
        self._store = store
        self._telemetry = telemetry
        self._worker = worker
        self._encoder = encoder or EventEncoder()
        self._max_buffered = max_buffered
        self._yield_interval = yield_interval
        self._clock = clock
        self._writer_id = secrets.token_hex(8)
        self._batch_numbers = itertools.count(1)
        self._buffer: deque[BufferedEvent] = deque()
        self._unwritten_batches: deque[EventBatch] = deque()
        self._clock_offset: float | None = None  # of the server's clock, in seconds; None: not measured yet
        self._last_time = 0.0
        self._lock = threading.Lock()
        self._dropped = 0
        self._drop_reason = ""
        self._is_failing = False
        self._outage_log = OutageLog(clock)
        self._writes_allowed = threading.Event()
        self._writes_allowed.set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        telemetry.add_sink(self.record_event)

    def record_event(self, name: str, fields: dict[str, Any]) -> None:
        """Buffer the event, or drop it when the buffer is full. This is the telemetry sink."""
        if len(self._buffer) >= self._max_buffered:
            self._count_dropped(1, f"{self._max_buffered} events wait to be written")
            return
        self._buffer.append((self._clock(), name, fields))

    @contextmanager
    def pause_writes(self) -> Iterator[None]:
        """Pause the writing thread inside the `with` block, so that the caller (a scheduler's heartbeat) gets the GIL.

        The pause ends early after one second or when too many events are buffered.
        """
        self._writes_allowed.clear()
        try:
            yield
        finally:
            self._writes_allowed.set()

    def start(self) -> None:
        """See `Service`. Starting again does nothing."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
                    self._thread.start()

    def stop(self) -> None:
        """See `Service`. Buffered events are still written if the journal can be written at once."""
        self._stopping.set()

    def join(self, timeout: float) -> bool:
        """See `Service`."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def write_pending(self) -> float:
        """Write the buffered events. Return the seconds until the next call. Only one thread may call it."""
        try:
            if self._clock_offset is None:
                self._measure_clock_offset(self._store.now)
            self._append_batches()  # batches that failed last time
            self._encode_buffer()
            self._append_batches()
        except (JournalUnavailable, MissingRight) as error:
            self._is_failing = True
            line = self._outage_log.record_failure(str(error), type(error).__name__)
            if line is not None:
                self._telemetry.emit("journal.write_failed", reason=line.reason)
            return _RETRY_INTERVAL
        self._is_failing = False
        line = self._outage_log.record_success()
        if line is not None:
            self._telemetry.emit("journal.recovered", seconds=round(line.seconds), failures=line.failures)
        self._emit_dropped()
        return _APPEND_INTERVAL

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._stopping.wait(self._write_pending_safely())
        self._write_pending_safely()
        if not self._is_failing:
            self._write_pending_safely()  # the event that reports dropped events
        left = len(self._buffer) + sum(batch.event_count for batch in self._unwritten_batches)
        if left:
            self._count_dropped(left, "the journal could not be written before the end")
            self._emit_dropped()

    def _write_pending_safely(self) -> float:
        try:
            return self.write_pending()
        except Exception as error:  # noqa: BLE001 - an error here must not end the journal or its process
            self._count_dropped(sum(batch.event_count for batch in self._unwritten_batches), typed_error_text(error))
            self._unwritten_batches.clear()
            return _RETRY_INTERVAL

    def _append_batches(self) -> None:
        while self._unwritten_batches:
            self._measure_clock_offset(partial(self._store.append, self._unwritten_batches[0]))
            self._unwritten_batches.popleft()

    def _measure_clock_offset(self, server_time: Callable[[], float]) -> None:
        """Measure how far this clock is ahead of the server's, as exactly as the round trip allows."""
        before = self._clock()
        server_now = server_time()
        after = self._clock()
        ahead = (before + after) / 2 - server_now
        if self._clock_offset is None or abs(ahead - self._clock_offset) > abs(after - before):
            self._clock_offset = ahead

    def _encode_buffer(self) -> None:
        """Encode the buffered events into batches."""
        size, events, ids = 0, list[bytes](), dict[str, None]()
        yielded_at = started_at = self._clock()
        for _ in range(len(self._buffer)):
            at, name, fields = self._buffer.popleft()
            if self._clock() - yielded_at >= self._yield_interval:
                self._yield_to_other_threads(started_at)
                yielded_at = self._clock()
            try:
                encoded = self._encoder.encode(self._server_time(at), name, fields)
            except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
                self._count_dropped(1, f"{name}: {type(error).__name__}")  # its message may quote a payload
                continue
            events.append(encoded)
            size += len(encoded)
            if fields.get("id"):
                ids[str(fields["id"])] = None
            if len(events) == MAX_BATCH_EVENTS or size >= BATCH_BYTES:
                self._add_batch(events, ids)
                size, events, ids = 0, [], {}
        self._add_batch(events, ids)

    def _yield_to_other_threads(self, started_at: float) -> None:
        deadline = started_at + _MAX_PAUSE_SECONDS
        while not self._writes_allowed.is_set() and len(self._buffer) < _PAUSE_BELOW and self._clock() < deadline:
            self._writes_allowed.wait(_PAUSE_CHECK_SECONDS)
        if len(self._buffer) < _YIELD_BELOW:
            # A worker has many threads, and launches are not held up by one of them: there a switch only costs time.
            time.sleep(0 if self._yield_interval else _YIELD_SECONDS)

    def _add_batch(self, events: list[bytes], ids: dict[str, None]) -> None:
        if events:
            self._unwritten_batches.append(
                self._encoder.build_batch(self._writer_id, next(self._batch_numbers), self._worker, events, list(ids))
            )

    def _server_time(self, at: float) -> float:
        """The server's time, never before the last event: a corrected offset must not put effects before causes."""
        self._last_time = max(self._last_time, at - (self._clock_offset or 0.0))
        return self._last_time

    def _count_dropped(self, number: int, reason: str) -> None:
        with self._lock:
            self._dropped += number
            self._drop_reason = reason

    def _emit_dropped(self) -> None:
        with self._lock:
            dropped, reason = self._dropped, self._drop_reason
            self._dropped = 0
        if dropped:
            self._telemetry.emit("journal.events_dropped", dropped=dropped, reason=reason)
