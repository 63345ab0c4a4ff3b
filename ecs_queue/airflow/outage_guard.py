"""Keeps an unavailable server from delaying the scheduler and from filling its log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from ecs_queue.errors import RetryableError

T = TypeVar("T")

#: How long no call is made after a failure.
BACKOFF_SECONDS = 2.0
#: The shortest time between two warnings about the same outage.
WARNING_INTERVAL_SECONDS = 60.0


class OutageGuard:
    """Makes the calls of one server and remembers its state. Not thread-safe."""

    def __init__(
        self,
        name: str,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Assume that the server is available. `on_failure` is called for each call that fails."""
        self._name = name
        self._log = log
        self._clock = clock
        self._on_failure = on_failure
        self._failing_since: float | None = None
        self._backs_off_until = float("-inf")
        self._warned_at = float("-inf")

    @property
    def is_backing_off(self) -> bool:
        """Whether a call has just failed, so that none is made now."""
        return self._clock() < self._backs_off_until

    def attempt(self, call: Callable[[], T]) -> T | None:
        """Return the result of `call`; None when the server is unavailable, without a call while it is backing off."""
        if self.is_backing_off:
            return None
        try:
            result = call()
        except RetryableError as error:
            self._record_failure(error)
            return None
        if self._failing_since is not None:
            self._log.info("the %s is available again after %.0f s", self._name, self._clock() - self._failing_since)
            self._failing_since = None
            self._warned_at = float("-inf")
        return result

    def _record_failure(self, error: RetryableError) -> None:
        self._on_failure()
        now = self._clock()
        self._backs_off_until = now + BACKOFF_SECONDS
        if self._failing_since is None:
            self._failing_since = now
        if now - self._warned_at >= WARNING_INTERVAL_SECONDS:
            self._warned_at = now
            self._log.warning(
                "the %s has been unavailable for %.0f s; scheduling continues and requests wait: %s",
                self._name,
                now - self._failing_since,
                error,
            )
