"""Prints the lines that a container wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ecs_queue.cli.ui.output import is_terminal, write_stdout
from ecs_queue.container_logs.base import LogLine

#: The commands that terminals obey: CSI (colours, the cursor), strings (titles, the clipboard), other escapes.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_LINE_BREAKS = re.compile(r"\r\n|[\r\n\x0b\x0c\x85\u2028\u2029]")


def terminal_lines(text: str) -> Iterator[str]:
    """Yield the line without what a terminal obeys: a progress bar becomes several lines. Blanks and tabs stay."""
    for part in _LINE_BREAKS.split(text.rstrip("\r\n")):
        yield _CONTROL_CHARACTERS.sub("", _SEQUENCES.sub("", part))


def print_log_line(line: LogLine, raw: bool = False) -> None:
    """Print a line to stdout; to a terminal, unless `raw`, without what it would obey."""
    if raw or not is_terminal():
        write_stdout(_to_bytes(line.text))
        return
    for part in terminal_lines(line.text):
        write_stdout(part)


def _to_bytes(text: str) -> bytes:
    """Return the bytes that the container wrote."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace")
