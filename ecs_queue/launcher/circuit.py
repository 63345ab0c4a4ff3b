"""A circuit for each queue: bad credentials or a missing cluster pause it, and nothing is failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from ecs_queue.core.answers import ReadTrouble, TroubleKind
from ecs_queue.telemetry import Telemetry

_TO_BE_MENDED = frozenset({TroubleKind.PROFILE, TroubleKind.DENIED, TroubleKind.GONE})
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0


class Circuits:
    """`monotonic`: this worker's own clock. After a pause the queue is tried again; a failure doubles the pause."""

    def __init__(self, monotonic: Callable[[], float], telemetry: Telemetry) -> None:
        self._monotonic = monotonic
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._open: dict[str, tuple[float, float, str]] = {}  # queue -> (until, pause, reason)
        self._troubles: dict[tuple[str, str], str] = {}  # (queue, AWS's operation) -> reason

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

    def trouble(self, queue: str, operation: str, trouble: ReadTrouble) -> None:
        """A read failed in a way that somebody has to mend: health says so until it works. The queue goes on: what can
        be launched is, and what cannot be followed now is followed then."""
        if trouble.kind not in _TO_BE_MENDED:
            return
        with self._lock:
            is_new = self._troubles.get((queue, operation)) != trouble.reason
            self._troubles[queue, operation] = trouble.reason
        if is_new:
            self._telemetry.emit("health", queue=queue, reason=trouble.reason)

    def no_trouble(self, queues: Iterable[str], operation: str) -> None:
        """The read has worked."""
        if self._troubles:  # the usual case takes no lock
            with self._lock:
                for queue in queues:
                    self._troubles.pop((queue, operation), None)

    def health(self) -> str:
        """ "ok", or why queues are paused, and which tasks cannot be followed."""
        with self._lock:
            told = [f"{queue}: {reason}" for queue, (_, _, reason) in self._open.items()]
            told += [f"{queue}: {reason}" for (queue, _), reason in self._troubles.items()]
            return "; ".join(dict.fromkeys(told)) or "ok"
