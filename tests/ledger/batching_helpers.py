"""Waiting until threads wait for the next trip."""

from __future__ import annotations

import threading
import time

from ecs_queue.ledger.batching import CallBatcher


def wait_until_pending(batcher: CallBatcher, number: int) -> None:
    """Until so many calls wait for the next trip; AssertionError after 10 s."""
    deadline = time.monotonic() + 10
    pause = threading.Event()
    while len(batcher._pending) < number:
        assert time.monotonic() < deadline
        pause.wait(0.001)
