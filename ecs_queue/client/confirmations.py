"""Confirms to the ledger which results the caller of a client has."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from ecs_queue.client.result_verification import ResultKey
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import LedgerUnavailable, MissingRight
from ecs_queue.ledger.base import Ledger

logger = logging.getLogger("ecs_queue")

#: How long a thread waits for the confirmation of another thread before it looks again. Seconds.
_LOOK_AGAIN_SECONDS = 0.25


class Confirmations:
    """Results that the caller has, and that the ledger does not know of yet. Thread-safe."""

    def __init__(self, ledger: Ledger, owner: str, new_event: Callable[[], threading.Event]) -> None:
        """Start without any; `owner` is whose results they are."""
        self._ledger = ledger
        self._owner = owner
        self._lock = threading.Lock()
        self._noted: deque[ResultKey] = deque()
        self._is_confirming = False
        self._ended = new_event()

    def __bool__(self) -> bool:
        """Return whether there is one."""
        return bool(self._noted)

    def note(self, key: ResultKey) -> None:
        """Note that the caller has this result."""
        with self._lock:
            self._noted.append(key)

    def send(self) -> bool:
        """Confirm what is noted; when this returns, no other thread is still confirming.

        Returns:
            False when the ledger did not take it: it stays noted for the next call.
        """
        while (keys := self._begin()) is None:
            self._ended.wait(_LOOK_AGAIN_SECONDS)
        if not keys:
            return True
        confirmed = 0
        try:
            crash_point("client.results_confirming")
            self._ledger.confirm(keys, self._owner)
            crash_point("client.results_confirmed")
            confirmed = len(keys)
        except (LedgerUnavailable, MissingRight) as error:
            logger.debug("Confirming results is retried later: %s", error)
        finally:
            self._end(confirmed)
        return bool(confirmed)

    def _begin(self) -> list[ResultKey] | None:
        """Return what to confirm; None while another thread confirms. What is not confirmed stays noted."""
        with self._lock:
            if self._is_confirming:
                return None
            keys = list(self._noted)
            self._is_confirming = bool(keys)
            self._ended.clear()
            return keys

    def _end(self, confirmed: int) -> None:
        with self._lock:
            self._is_confirming = False
            for _ in range(confirmed):
                self._noted.popleft()
        self._ended.set()
