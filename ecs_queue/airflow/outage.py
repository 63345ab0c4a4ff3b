"""Keeps a server that cannot be reached from holding up the scheduler, and from filling its log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from ecs_queue.errors import RetryableError

T = TypeVar("T")

#: After a failure the server is left alone for so long. Seconds.
REST_SECONDS = 2.0
#: An outage that goes on is mentioned again after so long. Seconds.
REMIND_SECONDS = 60.0


class Outage:
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
        self._since: float | None = None
        self._rests_until = float("-inf")
        self._said_at = float("-inf")

    @property
    def resting(self) -> bool:
        """Whether it is to be left alone now."""
        return self._clock() < self._rests_until

    def attempt(self, act: Callable[[], T]) -> T | None:
        """`act`'s answer; None when the server cannot be reached, or is left alone for a while after a failure."""
        if self.resting:
            return None
        try:
            answer = act()
        except RetryableError as error:
            self._failed(error)
            return None
        self._worked()
        return answer

    def _failed(self, error: RetryableError) -> None:
        self._on_failure()
        now = self._clock()
        self._rests_until = now + REST_SECONDS
        if self._since is None:
            self._since = now
        if now - self._said_at >= REMIND_SECONDS:
            self._said_at = now
            self._log.warning(
                "the %s cannot be reached since %.0f s; scheduling goes on, what is queued waits: %s",
                self._name,
                now - self._since,
                error,
            )

    def _worked(self) -> None:
        if self._since is not None:
            self._log.info("the %s is back after %.0f s", self._name, self._clock() - self._since)
            self._since = None
            self._said_at = float("-inf")
