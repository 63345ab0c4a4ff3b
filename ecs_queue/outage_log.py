"""Decides which failures of a server or a service are worth a line: the first, one a minute, and the end.

Workers, clients, the journal and the Airflow executor log outages by this one rule.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

#: The shortest time between two lines about the same kind of failure. Seconds.
LINE_INTERVAL_SECONDS = 60.0
#: An outage is over when it has worked for this long: what fails and works in turn is one outage. Seconds.
SETTLE_SECONDS = 5.0


class OutagePhase(StrEnum):
    """When a line is logged."""

    BEGAN = "began"
    CONTINUES = "continues"
    ENDED = "ended"


class OutageLine(NamedTuple):
    """A line to log.

    Attributes:
        phase: Which line it is.
        seconds: Since the first failure; of a line about the end, until it worked again.
        failures: Their number since then.
        reason: That of the last one.
    """

    phase: OutagePhase
    seconds: float
    failures: int
    reason: str

    def describe(self, subject: str) -> str:
        """Return the line's text about what fails, such as "the ledger"."""
        if self.phase is OutagePhase.BEGAN:
            return f"{subject} fails, it is tried again: {self.reason}"
        if self.phase is OutagePhase.CONTINUES:
            return f"{subject} has failed {self.failures} times in {self.seconds:.0f} s: {self.reason}"
        return f"{subject} works again after {self.seconds:.0f} s, failures: {self.failures}"


class OutageLog:
    """The failures of one server or service. Thread-safe; does no I/O."""

    def __init__(self, clock: Callable[[], float], settle_seconds: float = SETTLE_SECONDS) -> None:
        """Assume that it works. `clock` returns monotonic seconds."""
        self._clock = clock
        self._settle_seconds = settle_seconds
        self._lock = threading.Lock()
        self._began_at: float | None = None
        self._failed_at = 0.0
        self._works_since: float | None = None
        self._failures = 0
        self._reason = ""
        self._logged_at: dict[str, float] = {}  # kind of failure -> when a line was logged

    def find_reason(self) -> str:
        """Return why it fails now; "" while it works, after one failure, and when nothing was tried for a while."""
        with self._lock:
            is_recent = self._clock() - self._failed_at < LINE_INTERVAL_SECONDS
            return self._reason if self._failures > 1 and is_recent else ""

    def record_failure(self, reason: str, kind: str = "") -> OutageLine | None:
        """Record a failure; return the line to log, or None.

        Args:
            reason: What failed, for people.
            kind: What distinguishes one kind of failure from another: the first of each gets a line at once.
        """
        with self._lock:
            now = self._clock()
            is_first = self._began_at is None
            self._began_at = now if self._began_at is None else self._began_at
            self._failed_at, self._works_since, self._reason = now, None, reason
            self._failures += 1
            if now - self._logged_at.get(kind, float("-inf")) < LINE_INTERVAL_SECONDS:
                return None
            is_new = kind not in self._logged_at
            self._logged_at[kind] = now
            phase = OutagePhase.BEGAN if is_first or is_new else OutagePhase.CONTINUES
            return OutageLine(phase, now - self._began_at, self._failures, reason)

    def record_success(self) -> OutageLine | None:
        """Record that it works; return the line to log when that ends an outage."""
        if self._began_at is None:  # the usual case takes no lock
            return None
        with self._lock:
            now = self._clock()
            self._works_since = now if self._works_since is None else self._works_since
            if self._began_at is None or now - self._works_since < self._settle_seconds:
                return None
            line = OutageLine(OutagePhase.ENDED, self._works_since - self._began_at, self._failures, self._reason)
            self._began_at, self._failures, self._reason = None, 0, ""
            self._logged_at.clear()
            return line
