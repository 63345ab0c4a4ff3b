"""A circuit breaker for each queue and target: while it is open, this worker launches nothing there.

It opens when this worker's credentials or profile cannot be used, or its endpoint cannot be reached. No request fails
because of that, and other workers continue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from ecs_queue.protocol.ecs_results import EcsError, EcsErrorKind
from ecs_queue.telemetry import Telemetry

_NEEDS_OPERATOR = frozenset(
    {EcsErrorKind.UNUSABLE_PROFILE, EcsErrorKind.DENIED, EcsErrorKind.CLUSTER_NOT_FOUND, EcsErrorKind.INVALID}
)
#: After this many reads in a row without an answer health is degraded, and after this many launches in a row that were
#: not sent the circuit opens: fewer may be a short disturbance of the network.
_REPEATED_FAILURES = 3
#: How long a circuit stays open: it doubles with each failure. Seconds.
_MIN_OPEN, _MAX_OPEN = 5.0, 60.0


class CircuitBreakers:
    """Thread-safe. After that time, by its own clock, the worker tries the target again; a failure doubles the time.

    Only a circuit of the queue's present target stops new launches: a launch that was frozen for another target, before
    the profile was corrected, delays no new one.
    """

    def __init__(
        self, monotonic: Callable[[], float], telemetry: Telemetry, present_target: Callable[[str], str]
    ) -> None:
        """`present_target` returns the encoded target of a queue by this worker's profile; "" without one."""
        self._monotonic = monotonic
        self._telemetry = telemetry
        self._present_target = present_target
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], tuple[float, float, str]] = {}  # (queue, target) -> (until, seconds, reason)
        self._unsent: dict[tuple[str, str], int] = {}  # (queue, target) -> launches in a row that were not sent
        self._unavailable: dict[tuple[str, str], int] = {}  # (queue, operation) -> failures in a row without an answer
        self._read_errors: dict[tuple[str, str], str] = {}  # (queue, AWS's operation) -> reason

    def open(self, queue: str, reason: str, target: str | None = None) -> None:
        """Open the circuit of this queue to this target, by default its present one; does nothing while it is open."""
        circuit = (queue, self._present_target(queue) if target is None else target)
        with self._lock:
            now = self._monotonic()
            until, seconds, _ = self._open.get(circuit, (0.0, _MIN_OPEN / 2, ""))
            if until > now:
                return
            seconds = min(seconds * 2, _MAX_OPEN)
            self._open[circuit] = (now + seconds, seconds, reason)
        self._telemetry.emit("circuit.opened", queue=queue, reason=reason, seconds=round(seconds))

    def report_unsent(self, queue: str, reason: str, target: str) -> None:
        """Report a launch that could not be sent to this target: the circuit opens when that repeats."""
        with self._lock:
            unsent = self._unsent[queue, target] = self._unsent.get((queue, target), 0) + 1
        if unsent >= _REPEATED_FAILURES:
            self.open(queue, reason, target)

    def close(self, queue: str, target: str | None = None) -> None:
        """Close the circuit: a call has worked."""
        if self._open or self._unsent:  # the usual case takes no lock
            circuit = (queue, self._present_target(queue) if target is None else target)
            with self._lock:
                self._unsent.pop(circuit, None)
                was_open = self._open.pop(circuit, None)
            if was_open:
                self._telemetry.emit("circuit.closed", queue=queue)

    def is_open(self, queue: str) -> bool:
        """Return whether the circuit of the queue's present target is open now."""
        if not self._open:
            return False
        found = self._open.get((queue, self._present_target(queue)))
        return found is not None and found[0] > self._monotonic()

    def report_read_error(self, queue: str, operation: str, error: EcsError) -> None:
        """Report a read error as degraded health until the read works again, if it repeats or needs an operator.

        The circuit stays closed: the worker goes on launching, and follows the tasks once reads work.
        """
        with self._lock:
            if error.kind is EcsErrorKind.UNAVAILABLE:
                self._unavailable[queue, operation] = self._unavailable.get((queue, operation), 0) + 1
            is_repeated = self._unavailable.get((queue, operation), 0) >= _REPEATED_FAILURES
            if error.kind not in _NEEDS_OPERATOR and not is_repeated:
                return
            is_new = self._read_errors.get((queue, operation)) != error.reason
            self._read_errors[queue, operation] = error.reason
        if is_new:
            self._telemetry.emit("health.degraded", queue=queue, reason=error.reason)

    def clear_read_errors(self, queues: Iterable[str], operation: str) -> None:
        """Clear the read errors of these queues: the read has worked."""
        if self._read_errors or self._unavailable:  # the usual case takes no lock
            with self._lock:
                for queue in queues:
                    self._unavailable.pop((queue, operation), None)
                    self._read_errors.pop((queue, operation), None)

    def health(self) -> str:
        """Return "ok", or why circuits are open and which tasks cannot be followed."""
        with self._lock:
            now = self._monotonic()
            reasons = [
                f"{queue}: {reason}"
                for (queue, target), (until, _, reason) in self._open.items()
                if until > now or target == self._present_target(queue)
            ]
            reasons += [f"{queue}: {reason}" for (queue, _), reason in self._read_errors.items()]
            return "; ".join(dict.fromkeys(reasons)) or "ok"
