"""Prints answers: JSON for machines, tables for people, plain lines when stdout is no terminal."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, Literal

import click

from ecs_queue.errors import EcsQueueError, UsageError

#: Also those that turn the direction of what follows, in terminals that know directions.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
#: Categories of characters that take no column: accents, joiners, marks of direction.
_NO_COLUMN = frozenset({"Mn", "Me", "Cf"})
_SOFT_HYPHEN = "\u00ad"
STATE_STYLES = {
    "SUCCESS": "green",
    **dict.fromkeys(("FAILED", "REMOVED", "UNKNOWN"), "red"),
    **dict.fromkeys(("REVOKED", "EXPIRED"), "yellow"),
    **dict.fromkeys(("LAUNCHED", "LAUNCHING"), "cyan"),
}
#: Values of TERM of terminals that show escape sequences as they are: shells within editors, consoles of CI.
_PLAIN_TERMINALS = ("dumb", "unknown")
#: The name of a file that stands for stdin or stdout.
STDIO = "-"

#: Columns that a text in the last column of a table needs to be readable.
_MIN_LAST_COLUMN_WIDTH = 16
#: Columns between two columns of a table.
_TABLE_GAP = 3
#: A row's cells.
Row = Sequence[str]


class OutputError(EcsQueueError):
    """The answer cannot be written: stdout is closed or full."""


def is_terminal(stream: IO[Any] | None = None) -> bool:
    """Return whether the stream (by default stdout) is a terminal."""
    return (stream or sys.stdout).isatty()


def can_draw(stream: IO[Any] | None = None) -> bool:
    """Return whether the stream (by default stdout) is a terminal that knows colours and can show something anew."""
    return is_terminal(stream) and os.environ.get("TERM", "").lower() not in _PLAIN_TERMINALS


def sanitize(text: str) -> str:
    """Return the text on one line, without control characters: they could send commands to a terminal."""
    return _CONTROL_CHARACTERS.sub(" ", text).strip()


def describe_number(number: int, noun: str) -> str:
    """Return "1 request", "2 requests"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def truncate(text: str, limit: int) -> str:
    """Return at most `limit` characters, the last one an ellipsis when the text was longer.

    It is cut between two words, unless that would take more than a third of it.
    """
    if len(text) <= limit:
        return text
    cut = text.rfind(" ", 2 * limit // 3, limit - 1)
    return f"{text[: limit - 1] if cut < 0 else text[: cut + 1]}…"


def open_missing_streams() -> None:
    """Put a file in the place of each standard stream that the caller closed; it fails as the closed stream does.

    Otherwise the stream is None, and the first socket that is opened gets its number.
    """
    # /dev/null, opened the other way round: reading stdin and writing stdout are errors. stderr swallows what it gets.
    flags = {"stdin": ("r", os.O_WRONLY), "stdout": ("w", os.O_RDONLY), "stderr": ("w", os.O_WRONLY)}
    for name, (mode, flag) in flags.items():
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, flag), mode))  # noqa: SIM115 - as long as the process lives


def replace_unencodable() -> None:
    """Print a question mark for each character that stdout's encoding does not have, instead of failing there."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def knows_blocks() -> bool:
    """Return whether stdout's encoding has the characters of which rich draws bars."""
    try:
        "█▏".encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def discard_output(*streams: IO[Any] | None) -> None:
    """Discard what the streams still hold, so that the interpreter's last flush does not fail as well."""
    for stream in streams:
        with suppress(OSError, ValueError, AttributeError):
            number = stream.fileno()  # type: ignore[union-attr]
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)


@contextmanager
def wrap_output_errors(name: str = "stdout") -> Iterator[None]:
    """Raise an error of writing as `OutputError`; BrokenPipeError stays, because its reader wants no more."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"the answer cannot be written to {name}: {error.strerror or error}") from None


def write_stdout(content: str | bytes, end: str = "\n") -> None:
    """Write a part of the command's answer to stdout as it is, in UTF-8.

    Raises:
        OutputError: stdout is closed or full.
        BrokenPipeError: The program that reads it has ended.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with wrap_output_errors():
        click.echo(data + end.encode(), nl=False)


def print_stderr(text: str) -> None:
    """Print one line for people to stderr. It never fails, so that a full stderr changes nothing else."""
    with suppress(OSError):
        # As text, not bytes: a progress bar may have replaced stderr.
        click.echo(wrap_for_terminal(sanitize(text), 0, sys.stderr), err=True)


def print_stdout(text: str) -> None:
    """Print one line of the command's answer to stdout."""
    write_stdout(sanitize(text))


def print_sentence(text: str) -> None:
    """Print a sentence of the command's answer to stdout; a terminal gets it in lines of whole words."""
    write_stdout(wrap_for_terminal(sanitize(text), 0))


def print_json(value: Mapping[str, Any]) -> None:
    """Print one object on one line to stdout, in UTF-8."""
    write_stdout(to_json_line(value))


def to_json_line(value: Mapping[str, Any]) -> str:
    """Return the object as one line of JSON."""
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def replace_output(path: str, unchanged: str) -> Iterator[IO[bytes]]:
    """Write a regular file beside its place, and put it there when it is complete; anything else as `open_output`.

    An error, or a process that is killed, leaves the old file, or none. A new file is for its owner alone (mode 0600).
    Arguments are those of `open_output`.
    """
    if path == STDIO or (os.path.exists(path) and not os.path.isfile(path)):
        with open_output(path, unchanged) as sink:
            yield sink
        return
    place = os.path.realpath(path)  # a symbolic link stays one
    try:
        number, beside = tempfile.mkstemp(prefix=f".{os.path.basename(place)[:100]}.", dir=os.path.dirname(place))
    except (OSError, ValueError) as error:
        raise UsageError(f"--output {path}: {getattr(error, 'strerror', None) or error}; {unchanged}") from None
    try:
        with wrap_output_errors(f"--output {path}"), os.fdopen(number, "wb") as sink:
            with suppress(FileNotFoundError):
                os.chmod(beside, stat.S_IMODE(os.stat(place).st_mode))
            yield sink
            sink.flush()
            os.fsync(number)
            os.replace(beside, place)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise


@contextmanager
def open_output(path: str, unchanged: str) -> Iterator[IO[bytes]]:
    """Open a file for writing; `-` is stdout. The file is emptied.

    Args:
        path: The value of the option `--output`.
        unchanged: Ends the error's sentence, such as "nothing was exported".
    """
    if path == STDIO:
        with wrap_output_errors():
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    try:
        sink = open(path, "wb")  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:  # a null character in the name is a ValueError
        raise UsageError(f"--output {path}: {getattr(error, 'strerror', None) or error}; {unchanged}") from None
    with wrap_output_errors(f"--output {path}"), sink:
        yield sink


def style(text: str, **how: Any) -> str:
    """Return the text in a colour, as `click.style` takes it; plain where nothing is drawn, or NO_COLOR is set."""
    return click.style(text, **how) if can_draw() and not os.environ.get("NO_COLOR") else text


def print_table(headers: Row, rows: Sequence[Row]) -> None:
    """Print a table on a terminal; otherwise aligned columns, two spaces apart, under a line of headers.

    On a terminal only the last column has more than one line, and no word is broken: where the table is too wide for
    that, each row is a block under its first cell.
    """
    cleaned = [[sanitize(cell) for cell in row] for row in rows]
    if is_terminal():
        if fits_terminal(headers, cleaned):
            from rich.console import Console

            with wrap_output_errors():
                Console().print(rich_table(headers, cleaned))
            return
        _print_blocks(headers, cleaned)
        return
    lines = [list(headers), *cleaned]
    widths = [max(_display_width(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        padded = (cell + " " * (width - _display_width(cell)) for cell, width in zip(line, widths, strict=True))
        print_stdout("  ".join(padded))


def _print_blocks(headers: Row, rows: Sequence[Row]) -> None:
    for row in rows:
        write_stdout(style(row[0], bold=True))
        print_fields([(f"  {name}", cell) for name, cell in zip(headers[1:], row[1:], strict=True)])


def fits_terminal(headers: Row, rows: Sequence[Row]) -> bool:
    """Return whether a table fits the terminal without a broken word. True without a terminal.

    Of the last column the longest word has to fit, and a readable part of the longest text.
    """
    *columns, last = zip(headers, *rows, strict=False)
    widths = [max(_display_width(cell) for cell in column) for column in columns]
    longest = max(_display_width(cell) for cell in last)
    word = max((_display_width(word) for cell in last for word in cell.split()), default=0)
    needed = sum(widths) + max(word, min(longest, _MIN_LAST_COLUMN_WIDTH)) + _TABLE_GAP * len(headers)
    return not is_terminal() or needed <= shutil.get_terminal_size().columns


def fit_columns(headers: Row, rows: Sequence[Row], width: int) -> tuple[Row, Sequence[Row]]:
    """Return the table without those of its last columns that do not fit `width`.

    Where some columns remain for the last of them, its texts are shortened between two words instead.
    """
    cells = [[sanitize(cell) for cell in row] for row in rows]
    widths = [max(_display_width(cell) for cell in column) + _TABLE_GAP for column in zip(headers, *cells, strict=True)]
    fitting = len(headers)
    while fitting > 1 and sum(widths[:fitting]) > width:
        rest = width - sum(widths[: fitting - 1]) - _TABLE_GAP
        if rest >= _MIN_LAST_COLUMN_WIDTH:
            cells = [[*row[: fitting - 1], truncate(row[fitting - 1], rest)] for row in cells]
            break
        fitting -= 1
    return headers[:fitting], [row[:fitting] for row in cells]


def wrap_for_terminal(text: str, indent: int, stream: IO[Any] | None = None) -> str:
    """Return the text with a hanging indent where it is too wide for the terminal; words stay whole."""
    width = shutil.get_terminal_size().columns
    if not is_terminal(stream) or indent + _display_width(text) <= width:
        return text
    return textwrap.fill(
        text,
        max(width, 2 * indent),
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    ).lstrip()


def _display_width(text: str) -> int:
    """How many columns a terminal takes for the text."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in _NO_COLUMN and character != _SOFT_HYPHEN:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def rich_table(headers: Row, rows: Sequence[Row], overflow: Literal["fold", "ellipsis"] = "fold") -> Any:
    """Return a rich table whose texts stand as they are, never as markup. With "ellipsis" every row stays one line."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, header in enumerate(headers):
        # An id that is broken in two lines cannot be copied.
        table.add_column(Text(header), overflow=overflow, no_wrap=overflow == "ellipsis" or position < len(headers) - 1)
    for row in rows:
        table.add_row(*(Text(sanitize(cell), style=STATE_STYLES.get(cell, "")) for cell in row))
    return table


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line; pairs with an empty value are left out.

    A value with a word that is too long for the rest of a terminal's line stands below its name.
    """
    width = max(len(name) for name, _ in fields)
    columns = shutil.get_terminal_size().columns
    for name, value in fields:
        if value:
            longest = max(map(_display_width, sanitize(value).split()), default=0)
            if is_terminal() and width + 2 + longest > columns:
                indent = len(name) - len(name.lstrip()) + 2
                write_stdout(f"{name}\n{' ' * indent}{wrap_for_terminal(sanitize(value), indent)}")
                continue
            shown = wrap_for_terminal(sanitize(value), width + 2)
            if value in STATE_STYLES:
                shown = style(shown, fg=STATE_STYLES[value])
            write_stdout(f"{name.ljust(width)}  {shown}")


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print the members of a JSON-ready object as fields."""
    print_fields([(name.replace("_", " "), "" if value is None else str(value)) for name, value in facts.items()])
