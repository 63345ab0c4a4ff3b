"""Reports what fails again and again in a worker: one line when it begins, one a minute, one at its end.

When a server fails, all services of a worker fail. Their failures are one outage of that server; it ends when the
service that calls this server all the time succeeds. Any other failure (a missing right, a bug) is an outage of its
service.
"""

from __future__ import annotations

from collections.abc import Callable

from ecs_queue.error_text import typed_error_text
from ecs_queue.errors import (
    BrokerUnavailable,
    EcsQueueError,
    JournalUnavailable,
    LedgerUnavailable,
    MissingRight,
    WriteNotDurable,
)
from ecs_queue.outage_log import OutageLog, OutagePhase
from ecs_queue.telemetry import Telemetry

#: The service that calls the ledger every two seconds, and the one that always waits for the broker.
HEARTBEAT, CONSUMER = "heartbeat", "consumer"
_LEDGER, _BROKER, _SHARED = "the ledger", "the broker", "the server of ledger and broker"


class Outages:
    """Thread-safe."""

    def __init__(self, telemetry: Telemetry, monotonic: Callable[[], float], has_shared_server: bool = False) -> None:
        """Assume that all works.

        Args:
            telemetry: Gets the events.
            monotonic: Seconds.
            has_shared_server: Broker and ledger are one server.
        """
        self._telemetry = telemetry
        self._monotonic = monotonic
        self._ledger, self._broker = (_SHARED, _SHARED) if has_shared_server else (_LEDGER, _BROKER)
        self._witnesses = {HEARTBEAT: self._ledger, CONSUMER: self._broker}
        if has_shared_server:
            del self._witnesses[CONSUMER]
        self._logs: dict[str, OutageLog] = {}

    def report_failure(self, service: str, error: Exception) -> None:
        """Report that a service failed and will try again."""
        subject, kind = self._classify(service, error)
        server = _find_server(error)
        reason = str(error) if isinstance(error, EcsQueueError) else typed_error_text(error)
        log = self._logs.get(subject) or self._logs.setdefault(subject, OutageLog(self._monotonic))
        line = log.record_failure(reason, kind)
        if line is None:
            self._telemetry.emit("service.retried", service=service, reason=reason, server=server)
            return
        if line.phase is OutagePhase.CONTINUES:
            reason = f"{reason} ({line.failures} failures in {line.seconds:.0f} s)"
        self._telemetry.emit("service.failed", service=subject, reason=reason, server=server)

    def report_success(self, service: str) -> None:
        """Report that a service has done its work once more."""
        for subject in (service, self._witnesses.get(service)):
            log = None if subject is None else self._logs.get(subject)
            line = None if log is None else log.record_success()
            if line is not None:
                facts = {"seconds": round(line.seconds), "failures": line.failures}
                self._telemetry.emit("service.recovered", service=subject, **facts)

    def reasons(self) -> list[str]:
        """Return what fails now, for the worker's health."""
        found = [(subject, log.find_reason()) for subject, log in list(self._logs.items())]
        return [f"{subject}: {reason}" for subject, reason in found if reason]

    def _classify(self, service: str, error: Exception) -> tuple[str, str]:
        """What fails, and the kind of failure: the first of each kind gets a line at once."""
        if isinstance(error, MissingRight):
            return service, str(error)
        if isinstance(error, WriteNotDurable):  # the server answers
            return service, type(error).__name__
        if isinstance(error, BrokerUnavailable):
            return self._broker, ""
        if isinstance(error, LedgerUnavailable | JournalUnavailable):
            return self._ledger, ""
        return service, type(error).__name__


def _find_server(error: Exception) -> str:
    """Which server could not be reached: "broker", "ledger", or "" for another failure."""
    if isinstance(error, BrokerUnavailable):
        return "broker"
    return "ledger" if isinstance(error, LedgerUnavailable) else ""
