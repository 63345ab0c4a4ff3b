"""Writes the journal: a sink of telemetry that remembers, and a thread that encodes, redacts and appends in batches.

What is told costs its teller an append to a list. A journal that cannot be written stops nothing: what finds no room
in the buffer is dropped, and how much that was is an event itself.
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

from ecs_queue.errors import JournalUnavailable
from ecs_queue.journal.base import Batch, JournalStore
from ecs_queue.journal.encode import encode_event
from ecs_queue.telemetry import Telemetry

#: Seconds between two appends; after one that failed.
_EVERY, _AFTER_TROUBLE = 0.1, 1.0
#: Events that wait to be written; what comes beyond them is dropped.
_KEPT = 20_000
#: In a flood the writer would never get its turn, so it does not give way while so many events wait.
_GIVES_WAY_BELOW = 2_000
#: `held` keeps the writer from its work for so many seconds at most, and while fewer events than this wait.
_LONGEST_HOLD, _HOLDS_BELOW = 1.0, 10_000
#: How often it looks whether it is still kept. Seconds.
_HOLD_LOOK = 0.05
#: A batch is one element of the journal: so many events, and about so many bytes.
_EVENTS_AT_ONCE, _BYTES_AT_ONCE = 500, 256 * 1024

Told = tuple[float, str, dict[str, Any]]


class Recorder:
    """A `Service`. `record` is thread-safe and never blocks; `worker`: who writes, "" for a client.

    `turn`: after so many seconds of work it lets other threads go first, for it holds the interpreter's lock; 0: after
    every event.

    Events get the server's time: `clock` (a monotonic one, seconds) and how far it is from the server's.
    """

    def __init__(
        self,
        store: JournalStore,
        telemetry: Telemetry,
        worker: str = "",
        *,
        kept: int = _KEPT,
        turn: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._worker = worker
        self._kept = kept
        self._turn = turn
        self._clock = clock
        self._writer = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._told: deque[Told] = deque()
        self._unwritten: deque[Batch] = deque()
        self._ahead: float | None = None  # of the server's clock, in seconds; None: not measured yet
        self._last_at = 0.0
        self._lock = threading.Lock()
        self._dropped = 0
        self._why = ""
        self._in_trouble = False
        self._free = threading.Event()
        self._free.set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        telemetry.add_sink(self.record)

    def record(self, name: str, fields: dict[str, Any]) -> None:
        """The sink: keep the event until it is written, or drop it when too many wait."""
        if len(self._told) >= self._kept:
            self._drop(1, f"{self._kept} events wait to be written")
            return
        self._told.append((self._clock(), name, fields))

    @contextmanager
    def held(self) -> Iterator[None]:
        """The writer leaves its work for later, for a caller in a hurry: a scheduler in its heartbeat. Bounded in time,
        and in what waits."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def start(self) -> None:
        """See `Service`. Starting again does nothing."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
                    self._thread.start()

    def stop(self) -> None:
        """See `Service`. What waits is still written, if that works at once."""
        self._stopping.set()

    def join(self, timeout: float) -> bool:
        """See `Service`."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def step(self) -> float:
        """Write what waits; how many seconds to rest. One thread calls it."""
        try:
            if self._ahead is None:
                self._measure(self._store.now)
            self._append_all()  # what failed last time
            self._encode()
            self._append_all()
        except JournalUnavailable as error:
            if not self._in_trouble:
                self._in_trouble = True
                self._telemetry.emit("journal.trouble", reason=str(error))
            return _AFTER_TROUBLE
        self._in_trouble = False
        self._tell_dropped()
        return _EVERY

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._stopping.wait(self._guarded_step())
        self._guarded_step()
        if not self._in_trouble:
            self._guarded_step()  # that something was dropped
        left = len(self._told) + sum(batch.events for batch in self._unwritten)
        if left:
            self._drop(left, "the journal could not be written before the end")
            self._tell_dropped()

    def _guarded_step(self) -> float:
        try:
            return self.step()
        except Exception as error:  # noqa: BLE001 - a bug here must not end the journal, nor anything else
            self._drop(sum(batch.events for batch in self._unwritten), f"{type(error).__name__}: {error}")
            self._unwritten.clear()
            return _AFTER_TROUBLE

    def _append_all(self) -> None:
        while self._unwritten:
            batch = self._unwritten[0]
            self._measure(partial(self._store.append, batch))
            self._unwritten.popleft()

    def _measure(self, ask: Callable[[], float]) -> None:
        """How far this clock is ahead of the server's, as exactly as the round trip allows."""
        before = self._clock()
        servers = ask()
        after = self._clock()
        ahead = (before + after) / 2 - servers
        if self._ahead is None or abs(ahead - self._ahead) > abs(after - before):
            self._ahead = ahead

    def _encode(self) -> None:
        """Make batches of what waits."""
        size, events, ids = 0, list[bytes](), dict[str, None]()
        gave_way = began = self._clock()
        for _ in range(len(self._told)):
            at, name, fields = self._told.popleft()
            if self._clock() - gave_way >= self._turn:
                self._give_way(began)
                gave_way = self._clock()
            try:
                encoded = encode_event(self._server_time(at), name, fields)
            except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
                self._drop(1, f"{name}: {type(error).__name__}")  # its words may quote a payload
                continue
            events.append(encoded)
            size += len(encoded)
            if fields.get("id"):
                ids[str(fields["id"])] = None
            if len(events) == _EVENTS_AT_ONCE or size >= _BYTES_AT_ONCE:
                self._add_batch(events, ids)
                size, events, ids = 0, [], {}
        self._add_batch(events, ids)

    def _give_way(self, began: float) -> None:
        over_at = began + _LONGEST_HOLD
        while not self._free.is_set() and len(self._told) < _HOLDS_BELOW and self._clock() < over_at:
            self._free.wait(_HOLD_LOOK)
        if len(self._told) < _GIVES_WAY_BELOW:
            time.sleep(0)

    def _add_batch(self, events: list[bytes], ids: dict[str, None]) -> None:
        if events:
            self._unwritten.append(
                Batch(
                    writer=self._writer,
                    number=next(self._numbers),
                    worker=self._worker,
                    events=len(events),
                    ids=list(ids),
                    body=b"[" + b",".join(events) + b"]",
                )
            )

    def _server_time(self, at: float) -> float:
        """Never before the event told last: a better measured clock must not put effects before their causes."""
        self._last_at = max(self._last_at, at - (self._ahead or 0.0))
        return self._last_at

    def _drop(self, number: int, why: str) -> None:
        with self._lock:
            self._dropped += number
            self._why = why

    def _tell_dropped(self) -> None:
        with self._lock:
            dropped, why = self._dropped, self._why
            self._dropped = 0
        if dropped:
            self._telemetry.emit("journal.dropped", dropped=dropped, reason=why)
