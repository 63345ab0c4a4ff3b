"""Keeps an unavailable server, or one that denies a right, from delaying the scheduler and from filling its log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from ecs_queue.errors import MissingRight, RetryableError
from ecs_queue.outage_log import OutageLine, OutageLog, OutagePhase

T = TypeVar("T")

#: How long no call is made after a failure.
BACKOFF_SECONDS = 2.0
#: A failed call that took as long has waited in vain for the server; the scheduler's own time-out is 0.3 s.
LONG_WAIT_SECONDS = 0.2


class OutageGuard:
    """Makes the calls of one server and remembers its state. Not thread-safe."""

    def __init__(
        self,
        name: str,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Assume that the server is available. `on_failure` is called for each call that finds it unavailable."""
        self._name = name
        self._log = log
        self._clock = clock
        self._on_failure = on_failure
        self._outage_log = OutageLog(clock)
        self._backs_off_until = float("-inf")
        self._same_server: OutageGuard | None = None

    def share_waits_with(self, other: OutageGuard) -> None:
        """Hold back the calls of `other`, which has the same server, too, after a call that waited in vain for it.

        Else a heartbeat would wait for the same server twice. A failure without a wait is that of one kind of call.
        """
        self._same_server, other._same_server = other, self

    @property
    def is_backing_off(self) -> bool:
        """Whether a call has just failed, so that none is made now."""
        return self._clock() < self._backs_off_until

    def attempt(self, call: Callable[[], T]) -> T | None:
        """Return the result of `call`; None when it fails, without a call while the guard is backing off."""
        if self.is_backing_off:
            return None
        started_at = self._clock()
        try:
            result = call()
        except (RetryableError, MissingRight) as error:
            if isinstance(error, RetryableError):
                self._on_failure()
            failed_at = self._clock()
            self._back_off(failed_at)
            if self._same_server is not None and failed_at - started_at >= LONG_WAIT_SECONDS:
                self._same_server._back_off(failed_at)
            self._write(self._outage_log.record_failure(str(error), type(error).__name__))
            return None
        self._write(self._outage_log.record_success())
        return result

    def _back_off(self, now: float) -> None:
        self._backs_off_until = now + BACKOFF_SECONDS

    def _write(self, line: OutageLine | None) -> None:
        if line is None:
            return
        text = line.describe(f"the {self._name}")
        if line.phase is OutagePhase.ENDED:
            self._log.info("ecs-queue: %s", text)
        else:
            self._log.warning("ecs-queue: %s; scheduling continues and requests wait", text)
