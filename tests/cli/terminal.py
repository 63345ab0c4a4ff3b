"""Commands on a terminal: a pseudo-terminal of a given size."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tests.processes import CLI_COMMAND

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SECONDS = 60.0


def run_on_terminal(
    *arguments: str, environ: Mapping[str, str], columns: int = 80, term: str = "xterm-256color"
) -> tuple[int, str]:
    """Run a command to its end; return its exit status and everything it wrote, escape sequences included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environ = {**environ, "TERM": term}
    environ.pop("COLUMNS", None)
    process = subprocess.Popen(
        [*CLI_COMMAND, *arguments], env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    written = b""
    with suppress(OSError):  # EIO: the other end is closed
        while data := os.read(ours, 65536):
            written += data
    os.close(ours)
    return process.wait(60), written.decode().replace("\r\n", "\n")


@dataclass
class Terminal:
    """A process on a pseudo-terminal.

    Attributes:
        process: Ends with the context.
        ours, theirs: The two ends; `theirs` has the modes that a shell would find.
        written: What the process has written so far.
    """

    process: subprocess.Popen[bytes]
    ours: int
    theirs: int
    written: bytes = b""

    @property
    def modes(self) -> list[Any]:
        """How the terminal treats what is typed."""
        return termios.tcgetattr(self.theirs)

    def resize(self, columns: int) -> None:
        """Make it as wide as this, and tell the process, as a terminal that controls it does."""
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def read_until(self, wanted: bytes, start: int = 0) -> bytes:
        """Return what was written from `start`, as soon as `wanted` is in it."""
        deadline = time.monotonic() + _SECONDS
        while wanted not in self.written[start:]:
            assert time.monotonic() < deadline, self.written
            self._read(1.0)
        return self.written[start:]

    def read_to_end(self) -> int:
        """Read until the process has ended; return its exit status."""
        status = self.process.wait(_SECONDS)
        while self._read(0.0):
            pass
        return status

    def _read(self, seconds: float) -> bool:
        if not select.select([self.ours], [], [], seconds)[0]:
            return False
        self.written += os.read(self.ours, 65536)
        return True


@contextmanager
def open_terminal(
    *arguments: str, environ: Mapping[str, str], command: Sequence[str] = CLI_COMMAND
) -> Iterator[Terminal]:
    """Run a command on a terminal of 80 columns until the context ends."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    environ = {"TERM": "xterm-256color", **environ}
    environ.pop("COLUMNS", None)
    # A process group of its own, as a shell makes one, but no session: SIGTSTP does not stop an orphaned process group.
    process = subprocess.Popen(
        [*command, *arguments], env=environ, stdin=theirs, stdout=theirs, stderr=theirs, process_group=0
    )
    try:
        yield Terminal(process, ours, theirs)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def plain(text: str) -> str:
    """Return the text without escape sequences."""
    return _ESCAPE_SEQUENCE.sub("", text)
