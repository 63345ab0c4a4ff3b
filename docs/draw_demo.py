"""Draws docs/demo.svg, a demo on a terminal of 80 columns, for the README: `make recording`."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

COMMAND = "ecs-queue demo --tasks 12"
COLUMNS = 80
TARGET = Path(__file__).parent / "demo.svg"
#: The live table of rich hides the cursor until it is over; before each frame it erases the last one.
BEGIN, END, ERASE = "\x1b[?25l", "\x1b[?25h", "\x1b[1A\x1b[2K"
#: rich's picture loads a font from another site; the reader's own monospaced font does as well.
FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
#: How much of the demo's time has passed when the shown frame of the live table was drawn.
SHOWN_PART = 0.45


def main() -> None:
    """Run the demo and write the picture."""
    TARGET.write_text(draw(record([sys.executable, "-m", "ecs_queue", *COMMAND.split()[1:]])))


def record(command: list[str]) -> str:
    """Run a command on a terminal, and return what it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(  # noqa: S603 - it is the project's own command
        command, env={**environ, "TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = b""
    with suppress(OSError):  # EIO: the command has ended
        while data := os.read(ours, 65536):
            written += data
    os.close(ours)
    if process.wait(60):
        raise SystemExit(f"the demo failed:\n{written.decode()}")
    return written.decode().replace("\r\n", "\n")


def draw(written: str) -> str:
    """Return the picture of what a demo wrote: its beginning, one frame of the live table, and its end."""
    before, rest = written.split(BEGIN, 1)
    live, after = rest.split(END, 1)
    frames = [lines for part in live.split(ERASE) if (lines := _without_erasing(part)).strip()]
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(f"$ {COMMAND}", style="bold", highlight=False)
    for part in (before, frames[int(SHOWN_PART * len(frames))], _without_erasing(after)):
        for line in part.strip("\n").splitlines():
            console.print(Text.from_ansi(line.rstrip()), no_wrap=True, overflow="crop")
    picture = console.export_svg(title="ecs-queue", unique_id="demo")
    return FONT.sub("", picture)


def _without_erasing(part: str) -> str:
    return part.replace(ERASE, "").replace("\r", "").replace("\x1b[2K", "")


if __name__ == "__main__":
    main()
