"""Runs blocking reads beside the event loop, in threads of their own number.

The default number of threads belongs to the whole process: a server that does not answer would take all of them from
the program that the page is a part of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread

_T = TypeVar("_T")


class Threads:
    """At most `limit` threads at a time; further calls wait."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(self, function: Callable[..., _T], *args: Any) -> _T:
        """Return what the function returns."""
        if self._limiter is None:  # belongs to the event loop that runs now
            self._limiter = anyio.CapacityLimiter(self._limit)
        return await anyio.to_thread.run_sync(function, *args, limiter=self._limiter)
