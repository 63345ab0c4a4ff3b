"""What commands print: JSON for machines, tables for people, plain lines for everybody else."""

from __future__ import annotations

import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import IO, Any, Literal

import click

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

#: A row's cells, as text.
Row = Sequence[str]


def is_terminal(stream: IO[Any] | None = None) -> bool:
    """Whether a person looks at the stream (stdout by default)."""
    return (stream or sys.stdout).isatty()


def sanitize(text: str) -> str:
    """The text on one line, without the control characters with which it could rule a terminal."""
    return _CONTROL_CHARACTERS.sub(" ", text).strip()


def truncate(text: str, limit: int) -> str:
    """At most `most` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def print_stderr(text: str) -> None:
    """One line for people, on stderr (as text: stderr can write anything, and a progress bar may stand in for it)."""
    click.echo(sanitize(text), err=True)


def print_stdout(text: str) -> None:
    """One line of the command's answer, on stdout."""
    click.echo(sanitize(text).encode("utf-8", "backslashreplace"))


def print_json(value: Mapping[str, Any]) -> None:
    """One object, one line, on stdout, in UTF-8."""
    click.echo(to_json_line(value).encode("utf-8", "backslashreplace"))


def to_json_line(value: Mapping[str, Any]) -> str:
    """The object as one line of JSON."""
    return json.dumps(value, ensure_ascii=False)


def print_table(headers: Row, rows: Sequence[Row]) -> None:
    """A table on a terminal; elsewhere aligned columns, two spaces apart, with a line of headers."""
    cleaned = [[sanitize(cell) for cell in row] for row in rows]
    if is_terminal():
        from rich.console import Console

        Console().print(rich_table(headers, cleaned))
        return
    lines = [list(headers), *cleaned]
    widths = [max(_display_width(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        padded = (cell + " " * (width - _display_width(cell)) for cell, width in zip(line, widths, strict=True))
        print_stdout("  ".join(padded))


def print_table_or_blocks(headers: Row, rows: Sequence[Row]) -> None:
    """`show_table` where every row fits on one line of the terminal; else a block a row, under its first cell."""
    if fits_terminal(headers, rows):
        print_table(headers, rows)
        return
    for row in rows:
        click.secho(sanitize(row[0]), bold=True)
        print_fields([(f"  {name}", cell) for name, cell in zip(headers[1:], row[1:], strict=True)])


def fits_terminal(headers: Row, rows: Sequence[Row], extra_width: int = 0) -> bool:
    """Whether every row of a table fits on one line, with so many columns `beside` it; always, when nobody looks."""
    columns = zip(headers, *rows, strict=False)
    needed = extra_width + sum(max(_display_width(sanitize(cell)) for cell in column) + 3 for column in columns)
    return not is_terminal() or needed <= shutil.get_terminal_size().columns


def _display_width(text: str) -> int:
    """How many columns a terminal takes for it."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def rich_table(headers: Row, rows: Sequence[Row], overflow: Literal["fold", "ellipsis"] = "fold") -> Any:
    """A rich table; cells are taken as they are, never as markup. "ellipsis": every row stays one line."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, header in enumerate(headers):
        # What stands first names the row: an id that is broken in two cannot be copied.
        table.add_column(header, overflow=overflow, no_wrap=overflow == "ellipsis" or position == 0)
    for row in rows:
        table.add_row(*(Text(sanitize(cell), style=STATE_STYLES.get(cell, "")) for cell in row))
    return table


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair a line; empty values are left out."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        if value:
            shown = sanitize(value)
            if value in STATE_STYLES and is_terminal():
                shown = click.style(shown, fg=STATE_STYLES[value])
            click.echo(f"{name.ljust(width)}  {shown}".encode("utf-8", "backslashreplace"))


def format_duration(seconds: float) -> str:
    """For people: `0.42 s`, `12.3 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    seconds = max(0.0, seconds)
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, smaller, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError("unreachable")


#: The colours of states.
STATE_STYLES = {
    "SUCCESS": "green",
    "FAILED": "red",
    "REMOVED": "red",
    "UNKNOWN": "red",
    "REVOKED": "yellow",
    "EXPIRED": "yellow",
    "LAUNCHED": "cyan",
    "LAUNCHING": "cyan",
}
