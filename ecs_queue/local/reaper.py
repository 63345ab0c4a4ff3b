"""Kills process groups and removes temporary directories after the death of the process that made them.

A parent that is killed with SIGKILL cannot clean up. So it starts this file as a small separate process and keeps the
other end of its standard input: when the parent dies, the kernel closes that end, the reaper process reads end-of-file
and kills every process group that is still on its list. Unlike PR_SET_PDEATHSIG this reaches grandchildren too, does
not depend on which thread started the child, and works on every POSIX system.
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
from pathlib import Path

_REMOVE_ATTEMPTS = 5
_REMOVE_PAUSE_SECONDS = 0.1


@dataclass
class CleanupList:
    """The process groups to kill and the directories to remove."""

    groups: set[int] = field(default_factory=set)
    directories: set[str] = field(default_factory=set)


def read_commands(lines: Iterable[bytes]) -> CleanupList:
    """Apply the parent's lines until their end: `+PGID` and `-PGID`, `>DIRECTORY` and `<DIRECTORY`."""
    cleanup = CleanupList()
    for line in lines:
        sign, rest = line[:1], line[1:].rstrip(b"\n")
        if sign == b"+":
            cleanup.groups.add(int(rest))
        elif sign == b"-":
            cleanup.groups.discard(int(rest))
        elif sign == b">":
            cleanup.directories.add(os.fsdecode(rest))
        else:
            cleanup.directories.discard(os.fsdecode(rest))
    return cleanup


def main() -> None:
    """Read standard input until its end, then kill the groups and remove the directories on the list."""
    cleanup = read_commands(sys.stdin.buffer)
    for group in cleanup.groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for directory in cleanup.directories:
        _remove(directory)


def end_process(process: subprocess.Popen[bytes], timeout: float) -> None:
    """Wait for the end of a process that got a signal; kill it after `timeout` seconds."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_log_line(path: Path) -> str:
    """Return the last line of a process's log for an error message."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "it left no log"
    return lines[-1] if lines else "it left an empty log"


def _remove(directory: str) -> None:
    # A process that is being killed may still write: try again.
    for _ in range(_REMOVE_ATTEMPTS):
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.exists(directory):
            return
        time.sleep(_REMOVE_PAUSE_SECONDS)


class Reaper:
    """The parent's side: starts the reaper process and maintains its list.

    Thread-safe: each message is one write of less than PIPE_BUF bytes.
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
            start_new_session=True,  # Ctrl-C in the terminal is for the parent only
        )

    @property
    def pid(self) -> int:
        """The process id of the reaper process."""
        return self._process.pid

    def watch_group(self, group: int) -> None:
        """Kill this process group when the parent dies."""
        self._send(b"+%d\n" % group)

    def unwatch_group(self, group: int) -> None:
        """Take an ended process group off the list; its number may be used again."""
        self._send(b"-%d\n" % group)

    def watch_directory(self, directory: str | os.PathLike[str]) -> None:
        """Remove this temporary directory when the parent dies."""
        self._send(b">" + os.fsencode(directory) + b"\n")

    def unwatch_directory(self, directory: str | os.PathLike[str]) -> None:
        """Take this directory off the list."""
        self._send(b"<" + os.fsencode(directory) + b"\n")

    def close(self) -> None:
        """Clean up what is still on the list, and end the reaper process. May be called twice."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        # If the reaper process was killed, there is no protection any more, but the parent's work goes on.
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(line)


if __name__ == "__main__":
    main()
