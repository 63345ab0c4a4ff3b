"""Kills process groups and removes temporary directories after the death of the process that made them.

A parent that is killed with SIGKILL cannot clean up. So it starts this file as a small separate process and keeps the
other end of its standard input: when the parent dies, the kernel closes that end, the reaper process reads end-of-file
and kills every process group that is still on its list. Unlike PR_SET_PDEATHSIG this reaches grandchildren too, does
not depend on which thread started the child, and works on every POSIX system.

A parent may be killed after it has started a child and before the reaper knows the child's group. So each child has
the parent's directory in its environment (`MARKER`), and the reaper process kills what has it. This needs Linux's
/proc; elsewhere such a child goes on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

#: The variable that names the directory of the process that started this one.
MARKER = "ECS_QUEUE_LOCAL_DIRECTORY"
_REMOVE_ATTEMPTS = 5
_REMOVE_PAUSE_SECONDS = 0.1
#: A child that has closed the parent's files, and does not have its own environment yet, takes less.
_KILL_PAUSE_SECONDS = 0.02
_KILL_TIMEOUT_SECONDS = 2.0


@dataclass
class CleanupList:
    """The process groups to kill, and the directories to remove."""

    groups: set[int] = field(default_factory=set)
    directories: set[str] = field(default_factory=set)
    is_orderly: bool = False


def read_commands(lines: Iterable[bytes]) -> CleanupList:
    """Apply the parent's lines until their end.

    `+PGID` and `-PGID`, `>DIRECTORY` and `<DIRECTORY`; `.` comes before an orderly end.
    """
    cleanup = CleanupList()
    for line in lines:
        sign, rest = line[:1], line[1:].rstrip(b"\n")
        if sign == b"+":
            cleanup.groups.add(int(rest))
        elif sign == b"-":
            cleanup.groups.discard(int(rest))
        elif sign == b">":
            cleanup.directories.add(os.fsdecode(rest))
        elif sign == b".":
            cleanup.is_orderly = True
        else:
            cleanup.directories.discard(os.fsdecode(rest))
    return cleanup


def main() -> None:
    """Read standard input until its end, then clean up. The arguments are the directories that mark children."""
    cleanup = read_commands(sys.stdin.buffer)
    for group in cleanup.groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    if not cleanup.is_orderly:
        for marker in sys.argv[1:]:
            kill_marked_processes(marker)
    for directory in cleanup.directories:
        _remove(directory)


def kill_marked_processes(directory: str | os.PathLike[str]) -> None:
    """Kill every process whose environment names this directory in `MARKER`; return when two looks find none.

    It needs /proc. It gives up after 2 s, when a process cannot be killed.
    """
    kill_processes_with(MARKER, os.fspath(directory))


def kill_processes_with(variable: str, value: str) -> None:
    """Kill every process with this variable in its environment, as `kill_marked_processes` does."""
    entry = os.fsencode(f"{variable}={value}")
    deadline = time.monotonic() + _KILL_TIMEOUT_SECONDS
    empty_looks = 0
    while empty_looks < 2 and time.monotonic() < deadline:
        found = list(_find_processes(entry))
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        empty_looks = 0 if found else empty_looks + 1
        time.sleep(_KILL_PAUSE_SECONDS)


def _find_processes(entry: bytes) -> Iterator[int]:
    """The ids of the other processes with this entry in their environment."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            # An ended process, or one of another user, has no environment for us.
            with contextlib.suppress(OSError, ValueError):
                pid = int(name)
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                if pid != os.getpid() and entry in environment.split(b"\0"):
                    yield pid


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

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        """Start the reaper process; `directory` marks the children that `spawn` starts."""
        self._directory = directory
        marker = [] if directory is None else [os.fspath(directory)]
        # -I -S: no site, no environment, nothing of the parent's set-up: it starts in about 10 ms.
        self._process = subprocess.Popen(  # noqa: S603 - our own file, our own interpreter
            [sys.executable, "-I", "-S", os.path.abspath(__file__), *marker],
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

    def spawn(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdout: IO[bytes] | int,
        stderr: IO[bytes] | int = subprocess.STDOUT,
        cwd: str | os.PathLike[str] | None = None,
        umask: int = -1,
    ) -> subprocess.Popen[bytes]:
        """Start a process, in a session of its own, that ends with the parent. Popen's errors are raised."""
        marker = {} if self._directory is None else {MARKER: os.fspath(self._directory)}
        process = subprocess.Popen(  # noqa: S603 - what the local stack runs
            command,
            env={**environment, **marker},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            umask=umask,
            start_new_session=True,  # Ctrl-C in the terminal is for the parent only
        )
        self.watch_group(process.pid)
        return process

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
        self._send(b".\n")
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
