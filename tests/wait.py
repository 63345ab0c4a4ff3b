"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

from ecs_queue.errors import WriteNotDurable

#: Longer than anything takes on a busy machine.
TIMEOUT_SECONDS = 60.0


def wait_until(
    condition: Callable[[], object], description: str = "", seconds: float = TIMEOUT_SECONDS, interval: float = 0.02
) -> None:
    """Poll until the condition holds.

    Args:
        condition: Called every `interval` seconds.
        description: The expected fact, for the failure's message.
        seconds: The time limit.

    Raises:
        AssertionError: It did not hold within the time limit.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {description or 'the expected condition'}"
        time.sleep(interval)


def is_durable(write: Callable[[], object]) -> bool:
    """Write to the ledger, and return whether its server has confirmed that the write is durable."""
    try:
        write()
    except WriteNotDurable:
        return False
    return True
