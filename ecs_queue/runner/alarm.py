"""Ends the waits of a thread from another thread or a signal handler."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from contextlib import suppress


class Alarm:
    """What one thread or signal handler sets to end another thread's wait. It stays set until `clear`."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)

    def fileno(self) -> int:
        """Return the descriptor that can be read while the alarm is set."""
        return self._read_end

    def signal_fileno(self) -> int:
        """Return the descriptor for `signal.set_wakeup_fd`."""
        return self._write_end

    def set(self) -> None:
        """Set it."""
        with suppress(BlockingIOError):  # full: it is set
            os.write(self._write_end, b"\0")

    def wait(self, seconds: float | None) -> None:
        """Return when it is set, or after this time."""
        wait_until_readable([self._read_end], seconds)

    def clear(self) -> None:
        """Clear it."""
        with suppress(BlockingIOError):
            while os.read(self._read_end, 4096):
                pass

    def close(self) -> None:
        """Close both ends."""
        os.close(self._read_end)
        os.close(self._write_end)


def wait_until_readable(descriptors: Iterable[int], seconds: float | None) -> set[int]:
    """Return the descriptors that can be read, as soon as one can; none of them after this time."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(None if seconds is None else max(0.0, seconds * 1000))}
