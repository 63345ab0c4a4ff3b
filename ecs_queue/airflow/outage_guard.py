"""Keeps a server that cannot be reached from holding up the scheduler, and from filling its log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from ecs_queue.errors import RetryableError

T = TypeVar("T")

#: After a failure the server is left alone for so long. Seconds.
BACKOFF_SECONDS = 2.0
#: An outage that goes on is mentioned again after so long. Seconds.
WARNING_INTERVAL_SECONDS = 60.0


class OutageGuard:
    """One server's state as this process sees it. Not for several threads."""

    def __init__(
        self,
        name: str,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_failure` is called for each call that fails."""
        self._name = name
        self._log = log
        self._clock = clock
        self._on_failure = on_failure
        self._failing_since: float | None = None
        self._backs_off_until = float("-inf")
        self._warned_at = float("-inf")

    @property
    def is_backing_off(self) -> bool:
        """Whether it is to be left alone now."""
        return self._clock() < self._backs_off_until

    def attempt(self, call: Callable[[], T]) -> T | None:
        """`act`'s answer; None when the server cannot be reached, or is left alone for a while after a failure."""
        if self.is_backing_off:
            return None
        try:
            answer = call()
        except RetryableError as error:
            self._record_failure(error)
            return None
        self._record_success()
        return answer

    def _record_failure(self, error: RetryableError) -> None:
        self._on_failure()
        now = self._clock()
        self._backs_off_until = now + BACKOFF_SECONDS
        if self._failing_since is None:
            self._failing_since = now
        if now - self._warned_at >= WARNING_INTERVAL_SECONDS:
            self._warned_at = now
            self._log.warning(
                "the %s cannot be reached since %.0f s; scheduling goes on, what is queued waits: %s",
                self._name,
                now - self._failing_since,
                error,
            )

    def _record_success(self) -> None:
        if self._failing_since is not None:
            self._log.info("the %s is back after %.0f s", self._name, self._clock() - self._failing_since)
            self._failing_since = None
            self._warned_at = float("-inf")
