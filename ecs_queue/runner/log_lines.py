"""The lines with which a runner names the request in the container's log, before and after each command's output.

All commands of a runner write to one log. The output of a request stands between its start line and its end line. If
the output does not end with a newline, the end line follows on the same line: search for it anywhere in a logged line.
"""

from __future__ import annotations

import os
import re
import select
from typing import NamedTuple

_LINE = re.compile(
    r"ecs-queue runner: (start|end) of request ([A-Za-z0-9_-]{1,48}), launch (\d{1,9}), turn (\d{1,9})"
    r"(?:, exit code (\d{1,3})(, cancelled)?)?$"
)
#: If the log accepts nothing for this long, the line is lost; the command's end is reported nevertheless. Seconds.
_WRITE_SECONDS = 5.0


class LogLine(NamedTuple):
    """One of these lines. A start has no exit code."""

    id: str
    launch: int
    turn: int
    exit_code: int | None = None
    is_cancelled: bool = False


def format_line(line: LogLine) -> str:
    """Return the text of a line."""
    kind = "start" if line.exit_code is None else "end"
    end = "" if line.exit_code is None else f", exit code {line.exit_code}"
    cancelled = ", cancelled" if line.is_cancelled else ""
    return f"ecs-queue runner: {kind} of request {line.id}, launch {line.launch}, turn {line.turn}{end}{cancelled}"


def start_text(request_id: str, launch: int) -> str:
    """Return what the start line of a launch has and no other start line, up to its turn."""
    return format_line(LogLine(request_id, launch, 0)).removesuffix("0")


def parse_line(text: str) -> LogLine | None:
    """Return the start or end at the end of a logged line; None for other output."""
    found = _LINE.search(text.rstrip())
    if found is None or (found[1] == "end") is (found[5] is None):
        return None
    exit_code = None if found[5] is None else int(found[5])
    return LogLine(found[2], int(found[3]), int(found[4]), exit_code, bool(found[6]))


def write_line(text: str, descriptor: int = 1) -> None:
    """Write a line to the container's log, in one write; a log that is closed or takes nothing loses it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    try:
        # A pipe that can be written to takes PIPE_BUF bytes without a wait: more than a line has.
        if poll.poll(_WRITE_SECONDS * 1000):
            os.write(descriptor, f"{text}\n".encode()[:4000])
    except OSError:
        pass  # the reader of the log is gone; the runner reports the end of the command nevertheless
