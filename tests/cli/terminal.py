"""Commands on a terminal: a pseudo-terminal of a given size."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping
from contextlib import suppress

from tests.processes import CLI_COMMAND

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run_on_terminal(*arguments: str, environ: Mapping[str, str], columns: int = 80) -> tuple[int, str]:
    """Run a command to its end; return its exit status and everything it wrote, escape sequences included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environ = {**environ, "TERM": "xterm-256color"}
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


def plain(text: str) -> str:
    """Return the text without escape sequences."""
    return _ESCAPE_SEQUENCE.sub("", text)
