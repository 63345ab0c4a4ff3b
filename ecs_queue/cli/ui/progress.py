"""Shows the progress of long work on stderr: a bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ecs_queue.cli.ui.durations import format_duration
from ecs_queue.cli.ui.given_back_terminal import LINES, give_back_terminal
from ecs_queue.cli.ui.output import can_draw, is_terminal, print_stderr, write_stdout

_PRINT_INTERVAL_SECONDS = 5.0


#: On a narrower terminal the time since the start is left out, for the text.
_WIDE_COLUMNS = 100


@contextmanager
def open_progress(total: int, label: str | Callable[[], str]) -> Iterator[Progress]:
    """Show the progress of `total` pieces of work.

    `label` follows the numbers, such as "ended"; a function returns it each time that it is shown.
    """
    get_label = label if callable(label) else partial(str, label)
    if not can_draw(sys.stderr):
        yield Progress(total, get_label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column
    from rich.text import Text

    class Label(ProgressColumn):
        def render(self, task: object) -> Text:  # noqa: ARG002
            return Text(get_label())

    console = Console(stderr=True)
    text = Label(Column(no_wrap=True, overflow="ellipsis"))
    columns: list[ProgressColumn] = [BarColumn(None), MofNCompleteColumn(), text]
    if console.width >= _WIDE_COLUMNS:
        columns.append(TimeElapsedColumn())
    bar = RichProgress(*columns, console=console, redirect_stdout=False, redirect_stderr=True, expand=True)
    with give_back_terminal(sys.stderr, LINES), bar:
        yield ProgressBar(total, get_label, bar)


def remaining_text(total: int, ended: int, running: int, failed: int, elapsed: float) -> str:
    """Return what follows the number of requests that have ended: "ended, 8 running, 3 failed, 188 left, about 5 min".

    `elapsed` is in seconds. The rest is expected to take as long a request as the ones that have ended.
    """
    parts = ["ended", *([f"{running} running"] if running else []), *([f"{failed} failed"] if failed else [])]
    if ended < total:
        parts.append(f"{total - ended} left")
        if ended:
            parts.append(f"about {format_duration(elapsed / ended * (total - ended))}")
    return ", ".join(parts)


class Progress:
    """Prints `12/200 ended`, at most every few seconds, and lines of the command's answer in between."""

    def __init__(self, total: int, label: Callable[[], str]) -> None:
        self._total = total
        self._label = label
        self._done = 0
        self._printed_at = time.monotonic()

    def advance(self, number: int = 1) -> None:
        """Count `number` more pieces as done."""
        self._done += number
        now = time.monotonic()
        if now - self._printed_at >= _PRINT_INTERVAL_SECONDS:
            self._printed_at = now
            print_stderr(f"{self._done}/{self._total} {self._label()}")

    def print_line(self, line: str) -> None:
        """Print a line of the command's answer to stdout."""
        write_stdout(line)


class ProgressBar(Progress):
    """Draws a bar instead."""

    def __init__(self, total: int, label: Callable[[], str], bar: Any) -> None:
        super().__init__(total, label)
        self._bar = bar
        self._task = bar.add_task("", total=total)

    def advance(self, number: int = 1) -> None:
        """Count `number` more pieces as done."""
        self._bar.advance(self._task, number)

    def print_line(self, line: str) -> None:
        """Print the line to stdout; above the bar, when both are on the same terminal."""
        if is_terminal():
            self._bar.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
        else:
            super().print_line(line)
