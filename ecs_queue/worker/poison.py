"""Guards against requests that break their worker: counted before they are handled, handled one at a time.

A segmentation fault, `os._exit` or the kernel's OOM killer leaves no report. So a redelivered request is counted in the
ledger before anything is done with it, and uncounted afterwards; a request that was counted more than `max_deliveries`
times in a row and never uncounted is given up. They are handled one at a time, so that an innocent request in the same
worker is not counted with the culprit. The record itself counts the steps from the claim on
(`Record.abandoned_claims`).
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from ecs_queue.crash_points import crash_point
from ecs_queue.ledger.base import DeliveryCounts
from ecs_queue.protocol import reasons


class PoisonGuard:
    """Thread-safe."""

    def __init__(self, ledger: DeliveryCounts, max_deliveries: int) -> None:
        self._ledger = ledger
        self._max_deliveries = max_deliveries
        self._lock = threading.Lock()

    @contextmanager
    def guard_delivery(self, nonce: str) -> Iterator[str]:
        """Count the request with this nonce while it is handled.

        Yields:
            "" when it may be handled, else the reason why it must not be.
        """
        with self._lock:
            deliveries = self._ledger.begin_delivery(nonce, uuid.uuid4().hex)
            crash_point("poison.delivery_begun")
            if deliveries > self._max_deliveries:
                yield reasons.POISON % self._max_deliveries
                return
            try:
                yield ""
            finally:
                self._ledger.end_delivery(nonce)
                crash_point("poison.delivery_ended")
