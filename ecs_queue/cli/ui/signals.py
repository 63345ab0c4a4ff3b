"""Waits for SIGTERM, SIGHUP and SIGINT. The handler only writes a byte to a pipe, so that it cannot deadlock."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType
from typing import Any

from ecs_queue.local.stop_signals import stop_signals


class StopSignals:
    """Catches the signals that end a command, SIGHUP as SIGTERM, from `__enter__` to `__exit__`. Main thread only."""

    def __init__(self) -> None:
        self._previous: dict[signal.Signals, Any] = {}
        self._read_fd, self._write_fd = -1, -1

    def wait(self, timeout: float | None) -> signal.Signals | None:
        """Return the next signal, in order of arrival.

        Args:
            timeout: Seconds; None waits without a limit.

        Returns:
            The signal; None when none came in time.
        """
        ready, _, _ = select.select([self._read_fd], [], [], timeout)
        number = signal.Signals(os.read(self._read_fd, 1)[0]) if ready else None
        return signal.SIGTERM if number is signal.SIGHUP else number

    def __enter__(self) -> StopSignals:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        self._previous = {number: signal.signal(number, self._on_signal) for number in stop_signals()}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        with contextlib.suppress(BlockingIOError):  # the pipe is full of unread signals
            os.write(self._write_fd, bytes([number]))
