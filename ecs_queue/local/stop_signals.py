"""The signals that end a command in order, and the wait for them. SIGHUP, the end of its terminal, is SIGTERM.

The interpreter writes each signal's number to a pipe as it comes. A handler in Python would run only when the main
thread runs again: a signal between its last look and its wait, or one that another thread is given, would end no wait.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Any

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return SIGTERM, SIGINT and SIGHUP; the last not where it is ignored, as under `nohup`."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return tuple(number for number in _STOP_SIGNALS if number is not signal.SIGHUP or not is_ignored)


class StopSignals:
    """Catches the signals that end a command, SIGHUP as SIGTERM, from `__enter__` to `__exit__`. Main thread only."""

    def __init__(self) -> None:
        self._previous: dict[signal.Signals, Any] = {}
        self._read_fd, self._write_fd, self._previous_fd = -1, -1, -1

    def wait(self, timeout: float | None) -> signal.Signals | None:
        """Return the next signal, in order of arrival.

        Args:
            timeout: Seconds; None waits without a limit.

        Returns:
            The signal; None when none came in time.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            ready, _, _ = select.select([self._read_fd], [], [], left)
            if not ready:
                return None
            number = os.read(self._read_fd, 1)[0]
            if number in self._previous:  # other handlers in Python have their signals written as well
                return signal.SIGTERM if number == signal.SIGHUP else signal.Signals(number)

    def __enter__(self) -> StopSignals:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        self._previous_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, lambda *_: None) for number in stop_signals()}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        os.close(self._read_fd)
        os.close(self._write_fd)
