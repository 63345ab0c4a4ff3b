"""Requests that may break their worker: counted before they are touched, handled one at a time.

A segmentation fault, `os._exit` or the kernel's OOM killer leaves no word behind. So what comes again is counted in the
ledger before anything is done with it, and let go of after; what was taken in hand `max_deliveries` times in a row and
never let go of is given up. One at a time, so that the innocent in the same worker are not counted with the culprit.
The steps from the claim on are counted by the record itself (`Record.holds`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ecs_queue.crash_points import crash_point
from ecs_queue.ledger.base import Ledger
from ecs_queue.protocol import reasons


class PoisonGuard:
    """Thread-safe. `limit`: max_deliveries."""

    def __init__(self, ledger: Ledger, max_deliveries: int) -> None:
        self._ledger = ledger
        self._max_deliveries = max_deliveries
        self._lock = threading.Lock()

    @contextmanager
    def guard_delivery(self, nonce: str) -> Iterator[str]:
        """Hold the request with this nonce: "" when it may be touched, else the reason why it must not be."""
        with self._lock:
            held = self._ledger.begin_delivery(nonce)
            crash_point("poison.delivery_begun")
            if held > self._max_deliveries:
                yield reasons.POISON % self._max_deliveries
                return
            try:
                yield ""
            finally:
                self._ledger.end_delivery(nonce)
                crash_point("poison.delivery_ended")
