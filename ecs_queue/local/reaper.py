"""Ends process groups, and removes temporary directories, when the process that made them is gone.

A parent that is killed with SIGKILL cannot tidy up. So it starts this file as a small process of its own and
keeps the other end of its standard input: when the parent dies, the kernel closes that end, the keeper reads
end-of-file and kills every process group that is still on its list. Unlike PR_SET_PDEATHSIG this reaches
grandchildren too, does not depend on which thread started the child, and works on every POSIX system.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

_REMOVE_ATTEMPTS = 5
_REMOVE_PAUSE_SECONDS = 0.1


@dataclass
class CleanupList:
    """What is to end with the parent."""

    groups: set[int] = field(default_factory=set)
    directories: set[str] = field(default_factory=set)


def read_commands(lines: Iterable[bytes]) -> CleanupList:
    """Follow the parent's lines to their end: ``+PGID`` and ``-PGID``, ``>DIRECTORY`` and ``<DIRECTORY``."""
    charge = CleanupList()
    for line in lines:
        sign, rest = line[:1], line[1:].rstrip(b"\n")
        if sign == b"+":
            charge.groups.add(int(rest))
        elif sign == b"-":
            charge.groups.discard(int(rest))
        elif sign == b">":
            charge.directories.add(os.fsdecode(rest))
        else:
            charge.directories.discard(os.fsdecode(rest))
    return charge


def main() -> None:
    """Read from standard input until its end, then kill and remove what is left."""
    charge = read_commands(sys.stdin.buffer)
    for group in charge.groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for directory in charge.directories:
        _remove(directory)


def _remove(directory: str) -> None:
    # A process that is being killed may still write: look again.
    for _ in range(_REMOVE_ATTEMPTS):
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.exists(directory):
            return
        time.sleep(_REMOVE_PAUSE_SECONDS)


class Reaper:
    """The parent's end: tell the keeper process what to end and what has ended.

    Thread-safe: each message is one write of less than PIPE_BUF bytes. ``close`` is the orderly end; what is
    still watched then is ended as well.
    """

    def __init__(self) -> None:
        # -I -S: no site, no environment, nothing of the parent's set-up: it starts in about 10 ms.
        self._process = subprocess.Popen(  # noqa: S603 - our own file, our own interpreter
            [sys.executable, "-I", "-S", os.path.abspath(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal is the parent's business, not the keeper's
        )

    @property
    def pid(self) -> int:
        """The keeper's own process id."""
        return self._process.pid

    def watch_group(self, group: int) -> None:
        """Kill this process group when the parent dies."""
        self._send(b"+%d\n" % group)

    def unwatch_group(self, group: int) -> None:
        """This process group has ended; its number may be used again."""
        self._send(b"-%d\n" % group)

    def watch_directory(self, directory: str | os.PathLike[str]) -> None:
        """Remove this temporary directory when the parent dies."""
        self._send(b">" + os.fsencode(directory) + b"\n")

    def unwatch_directory(self, directory: str | os.PathLike[str]) -> None:
        """Leave this directory alone from now on."""
        self._send(b"<" + os.fsencode(directory) + b"\n")

    def close(self) -> None:
        """End the keeper and whatever it still watches. May be called twice."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        # A keeper that somebody killed protects nothing any more, but the parent's work goes on.
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(line)


if __name__ == "__main__":
    main()
