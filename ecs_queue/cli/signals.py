"""SIGTERM and SIGINT as something to wait for: the handler only writes a byte, so that it can deadlock with nothing."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType, TracebackType
from typing import Any

STOPS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Catches SIGTERM and SIGINT from `__enter__` to `__exit__`. Main thread only."""

    def __init__(self) -> None:
        self._previous: dict[signal.Signals, Any] = {}
        self._read, self._write = -1, -1

    def wait(self, timeout: float | None) -> signal.Signals | None:
        """The next signal, in order; None when none comes within `timeout` seconds (None: for ever)."""
        ready, _, _ = select.select([self._read], [], [], timeout)
        return signal.Signals(os.read(self._read, 1)[0]) if ready else None

    def __enter__(self) -> StopSignals:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._previous = {number: signal.signal(number, self._caught) for number in STOPS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        del frame
        with contextlib.suppress(BlockingIOError):  # the pipe is full of signals that nobody has read yet
            os.write(self._write, bytes([number]))
