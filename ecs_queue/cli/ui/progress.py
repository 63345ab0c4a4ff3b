"""How far long work has come: a bar on stderr when a person looks, a line now and then when not."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

import click

from ecs_queue.cli.ui.output import is_terminal, print_stderr

#: Seconds between two lines when nobody looks.
_PRINT_INTERVAL_SECONDS = 5.0


def make_progress(total: int, label: str) -> Progress:
    """`total` pieces of work; `what` is the word behind the numbers, such as "ended"."""
    return ProgressBar(total, label) if is_terminal(sys.stderr) else ProgressLines(total, label)


class Progress:
    """Counts to `total`, and prints lines of the answer between the updates. Used as a context manager."""

    def __init__(self, total: int, label: str) -> None:
        self._total = total
        self._label = label
        self._done = 0

    def advance(self, number: int = 1) -> None:
        """So many more are done."""
        self._done += number
        self._update()

    def print_line(self, line: str) -> None:
        """A line of the command's answer, on stdout."""
        click.echo(line.encode("utf-8", "backslashreplace"))

    def _update(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class ProgressLines(Progress):
    """`12/200 ended`, at most every few seconds."""

    def __init__(self, total: int, label: str) -> None:
        super().__init__(total, label)
        self._printed_at = time.monotonic()

    def _update(self) -> None:
        now = time.monotonic()
        if now - self._printed_at >= _PRINT_INTERVAL_SECONDS:
            self._printed_at = now
            print_stderr(f"{self._done}/{self._total} {self._label}")


class ProgressBar(Progress):
    """A progress bar on stderr."""

    def __init__(self, total: int, label: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        super().__init__(total, label)
        columns: tuple[Any, ...] = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = RichProgress(
            *columns, TimeElapsedColumn(), console=Console(stderr=True), redirect_stdout=False, redirect_stderr=True
        )
        self._task = self._bar.add_task(label, total=total)

    def print_line(self, line: str) -> None:
        """Above the bar, when both are on the same screen."""
        if is_terminal():
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            super().print_line(line)

    def _update(self) -> None:
        self._bar.update(self._task, completed=self._done)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)
