"""Reads the counts of the last hour for every page that asks within some seconds, and makes no page wait for long."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ecs_queue.errors import EcsQueueError
from ecs_queue.journal.last_hour import HourCounter, HourCounts

#: For how long the counts answer every page, and the longest wait of a page for them. Seconds.
_MAX_AGE, _MAX_WAIT = 5.0, 0.08

#: Updates the counter and returns the counts, or returns why they cannot be read.
ReadHour = Callable[[HourCounter], HourCounts | str]


class HourReader:
    """Keeps the counts. Thread-safe.

    One thread at a time reads, and only when a page asks: the first time it reads up to an hour of the journal, which
    may take seconds; the pages meanwhile show the counts before, or that they are being read.
    """

    def __init__(self, read: ReadHour, monotonic: Callable[[], float], max_wait: float = _MAX_WAIT) -> None:
        """Read with `read`, by a clock that never goes back, and let a page wait for at most `max_wait` seconds."""
        self._read, self._monotonic, self._max_wait = read, monotonic, max_wait
        self._condition = threading.Condition()
        self._counter = HourCounter()
        self._is_reading = False
        self._found: HourCounts | str = "The journal is being read for the first time: load the page again in a moment."
        self._read_at = float("-inf")

    def get(self) -> HourCounts | str:
        """Return the newest counts that there are, or why there are none."""
        with self._condition:
            if self._monotonic() - self._read_at > _MAX_AGE:
                if not self._is_reading:
                    self._is_reading = True
                    threading.Thread(target=self._run, name="web-last-hour", daemon=True).start()
                self._condition.wait_for(lambda: not self._is_reading, self._max_wait)
            return self._found

    def _run(self) -> None:
        found: HourCounts | str = "The counts of the last hour cannot be read."
        try:
            found = self._read(self._counter)
        except EcsQueueError as error:
            found = str(error)
        finally:
            with self._condition:
                self._found, self._read_at, self._is_reading = found, self._monotonic(), False
                self._condition.notify_all()
