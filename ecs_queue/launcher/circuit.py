"""A circuit for each queue: bad credentials or a missing cluster pause it, and nothing is failed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ecs_queue.telemetry import Telemetry

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0


class Circuits:
    """`monotonic`: this worker's own clock. After a pause the queue is tried again; a failure doubles the pause."""

    def __init__(self, monotonic: Callable[[], float], telemetry: Telemetry) -> None:
        self._monotonic = monotonic
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._open: dict[str, tuple[float, float, str]] = {}  # queue -> (until, pause, reason)

    def open(self, queue: str, reason: str) -> None:
        """Pause the queue. While it is paused already, nothing changes."""
        with self._lock:
            now = self._monotonic()
            until, pause, _ = self._open.get(queue, (0.0, _FIRST_PAUSE / 2, ""))
            if until > now:
                return
            pause = min(pause * 2, _LONGEST_PAUSE)
            self._open[queue] = (now + pause, pause, reason)
        self._telemetry.emit("circuit.opened", queue=queue, reason=reason, seconds=round(pause))

    def close(self, queue: str) -> None:
        """A call has worked."""
        if queue in self._open:  # the usual case takes no lock
            with self._lock:
                was = self._open.pop(queue, None)
            if was:
                self._telemetry.emit("circuit.closed", queue=queue)

    def is_open(self, queue: str) -> bool:
        """Whether the queue is paused now."""
        found = self._open.get(queue)
        return found is not None and found[0] > self._monotonic()

    def health(self) -> str:
        """ "ok", or why queues are paused."""
        with self._lock:
            return "; ".join(f"{queue}: {reason}" for queue, (_, _, reason) in self._open.items()) or "ok"
