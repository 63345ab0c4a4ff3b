"""A circuit for each queue: bad credentials or a missing cluster pause it, and nothing is failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from ecs_queue.protocol.ecs_results import EcsError, EcsErrorKind
from ecs_queue.telemetry import Telemetry

_NEEDS_OPERATOR = frozenset({EcsErrorKind.UNUSABLE_PROFILE, EcsErrorKind.DENIED, EcsErrorKind.CLUSTER_NOT_FOUND})
_MIN_PAUSE, _MAX_PAUSE = 5.0, 60.0


class CircuitBreakers:
    """`monotonic`: this worker's own clock. After a pause the queue is tried again; a failure doubles the pause."""

    def __init__(self, monotonic: Callable[[], float], telemetry: Telemetry) -> None:
        self._monotonic = monotonic
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._open: dict[str, tuple[float, float, str]] = {}  # queue -> (until, pause, reason)
        self._read_errors: dict[tuple[str, str], str] = {}  # (queue, AWS's operation) -> reason

    def open(self, queue: str, reason: str) -> None:
        """Pause the queue. While it is paused already, nothing changes."""
        with self._lock:
            now = self._monotonic()
            until, pause, _ = self._open.get(queue, (0.0, _MIN_PAUSE / 2, ""))
            if until > now:
                return
            pause = min(pause * 2, _MAX_PAUSE)
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

    def report_read_error(self, queue: str, operation: str, error: EcsError) -> None:
        """A read failed in a way that somebody has to mend: health says so until it works. The queue goes on: what can
        be launched is, and what cannot be followed now is followed then."""
        if error.kind not in _NEEDS_OPERATOR:
            return
        with self._lock:
            is_new = self._read_errors.get((queue, operation)) != error.reason
            self._read_errors[queue, operation] = error.reason
        if is_new:
            self._telemetry.emit("health.degraded", queue=queue, reason=error.reason)

    def clear_read_errors(self, queues: Iterable[str], operation: str) -> None:
        """The read has worked."""
        if self._read_errors:  # the usual case takes no lock
            with self._lock:
                for queue in queues:
                    self._read_errors.pop((queue, operation), None)

    def health(self) -> str:
        """ "ok", or why queues are paused, and which tasks cannot be followed."""
        with self._lock:
            told = [f"{queue}: {reason}" for queue, (_, _, reason) in self._open.items()]
            told += [f"{queue}: {reason}" for (queue, _), reason in self._read_errors.items()]
            return "; ".join(dict.fromkeys(told)) or "ok"
