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

from ecs_queue.core.breaking import broken_reason
from ecs_queue.crashpoints import reach
from ecs_queue.ledger.base import Ledger


class Suspects:
    """Thread-safe. `limit`: max_deliveries."""

    def __init__(self, ledger: Ledger, limit: int) -> None:
        self._ledger = ledger
        self._limit = limit
        self._one_at_a_time = threading.Lock()

    @contextmanager
    def in_hand(self, nonce: str) -> Iterator[str]:
        """Hold the request with this nonce: "" when it may be touched, else the reason why it must not be."""
        with self._one_at_a_time:
            held = self._ledger.hold(nonce)
            reach("suspect.held")
            if held > self._limit:
                yield broken_reason(self._limit)
                return
            try:
                yield ""
            finally:
                self._ledger.let_go(nonce)
                reach("suspect.let_go")
