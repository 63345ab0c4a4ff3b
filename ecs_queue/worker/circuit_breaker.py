"""A circuit breaker for each queue and target: it pauses a queue that the worker's credentials or cluster do not serve.

No request fails for such a trouble, and other workers go on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from ecs_queue.protocol.ecs_results import EcsError, EcsErrorKind
from ecs_queue.telemetry import Telemetry

_NEEDS_OPERATOR = frozenset(
    {EcsErrorKind.UNUSABLE_PROFILE, EcsErrorKind.DENIED, EcsErrorKind.CLUSTER_NOT_FOUND, EcsErrorKind.INVALID}
)
_MIN_PAUSE, _MAX_PAUSE = 5.0, 60.0


class CircuitBreakers:
    """Thread-safe. After a pause, by this worker's own clock, the target is tried again; a failure doubles the pause.

    Only a circuit of the queue's present target pauses the queue: a launch that was frozen for another target, before
    the profile was mended, delays no new one.
    """

    def __init__(
        self, monotonic: Callable[[], float], telemetry: Telemetry, present_target: Callable[[str], str]
    ) -> None:
        """`present_target` returns the encoded target of a queue by this worker's profile; "" without one."""
        self._monotonic = monotonic
        self._telemetry = telemetry
        self._present_target = present_target
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], tuple[float, float, str]] = {}  # (queue, target) -> (until, pause, reason)
        self._read_errors: dict[tuple[str, str], str] = {}  # (queue, AWS's operation) -> reason

    def open(self, queue: str, reason: str, target: str | None = None) -> None:
        """Pause the calls of this queue to this target, by default its present one; not while they are paused."""
        circuit = (queue, self._present_target(queue) if target is None else target)
        with self._lock:
            now = self._monotonic()
            until, pause, _ = self._open.get(circuit, (0.0, _MIN_PAUSE / 2, ""))
            if until > now:
                return
            pause = min(pause * 2, _MAX_PAUSE)
            self._open[circuit] = (now + pause, pause, reason)
        self._telemetry.emit("circuit.opened", queue=queue, reason=reason, seconds=round(pause))

    def close(self, queue: str, target: str | None = None) -> None:
        """End the pause: a call has worked."""
        if self._open:  # the usual case takes no lock
            circuit = (queue, self._present_target(queue) if target is None else target)
            with self._lock:
                was_open = self._open.pop(circuit, None)
            if was_open:
                self._telemetry.emit("circuit.closed", queue=queue)

    def is_open(self, queue: str) -> bool:
        """Return whether the queue is paused now: calls to its present target are."""
        if not self._open:
            return False
        found = self._open.get((queue, self._present_target(queue)))
        return found is not None and found[0] > self._monotonic()

    def report_read_error(self, queue: str, operation: str, error: EcsError) -> None:
        """Report a read error that an operator has to mend as degraded health, until the read works again.

        The queue is not paused: what can be launched is launched, and followed once reads work.
        """
        if error.kind not in _NEEDS_OPERATOR:
            return
        with self._lock:
            is_new = self._read_errors.get((queue, operation)) != error.reason
            self._read_errors[queue, operation] = error.reason
        if is_new:
            self._telemetry.emit("health.degraded", queue=queue, reason=error.reason)

    def clear_read_errors(self, queues: Iterable[str], operation: str) -> None:
        """Clear the read errors of these queues: the read has worked."""
        if self._read_errors:  # the usual case takes no lock
            with self._lock:
                for queue in queues:
                    self._read_errors.pop((queue, operation), None)

    def health(self) -> str:
        """Return "ok", or why queues are paused and which tasks cannot be followed."""
        with self._lock:
            now = self._monotonic()
            reasons = [
                f"{queue}: {reason}"
                for (queue, target), (until, _, reason) in self._open.items()
                if until > now or target == self._present_target(queue)
            ]
            reasons += [f"{queue}: {reason}" for (queue, _), reason in self._read_errors.items()]
            return "; ".join(dict.fromkeys(reasons)) or "ok"
