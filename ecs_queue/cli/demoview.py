"""The demo's view while it runs: a moving table when a person looks, plain lines when not."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ecs_queue.cli.demotasks import DemoTask
from ecs_queue.cli.facts import is_usual
from ecs_queue.cli.look import STATES
from ecs_queue.cli.output import duration, is_watched, rich_table, say, shortened

if TYPE_CHECKING:
    from ecs_queue.core.record import Record

_EVERY = 1.0
_ROWS = 14


def make_view(tasks: Sequence[DemoTask]) -> View:
    """The view that suits stderr."""
    return LiveView(tasks) if is_watched(sys.stderr) else View(tasks)


class View:
    """A line about every second, when something has changed."""

    def __init__(self, tasks: Sequence[DemoTask]) -> None:
        self._tasks = tasks
        self._started = time.monotonic()
        self._told_at = float("-inf")
        self._told = ""

    def update(self, records: Mapping[str, Record]) -> None:
        """The records as they are now."""
        now = time.monotonic()
        counts = summary_of(records)
        if counts != self._told and now - self._told_at >= _EVERY:
            self._told, self._told_at = counts, now
            say(f"{duration(now - self._started)}  {counts}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class LiveView(View):
    """Counts by state, a bar, and the requests that moved last."""

    def __init__(self, tasks: Sequence[DemoTask]) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(tasks)
        self._live = Live(console=Console(stderr=True), transient=True, refresh_per_second=8)
        self._moved: dict[str, str] = {}  # id -> what it was shown as; the last one moved last

    def update(self, records: Mapping[str, Record]) -> None:
        """The records as they are now."""
        for record_id, record in records.items():
            shown = f"{record.state} {record.attempt} {record.last_status}"
            if self._moved.get(record_id) != shown:
                self._moved.pop(record_id, None)
                self._moved[record_id] = shown
        self._live.update(self._picture(records))

    def _picture(self, records: Mapping[str, Record]) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        ended = sum(record.ended for record in records.values())
        head = f"{duration(time.monotonic() - self._started)}   {summary_of(records)}"
        commands = {task.id: task.shown for task in self._tasks}
        rows = [_row(records[name], commands[name]) for name in list(self._moved)[-_ROWS:] if name in records]
        table = rich_table(("id", "command", "state", "ECS", "attempt", "exit", "reason"), rows, "ellipsis")
        bar = ProgressBar(total=len(self._tasks), completed=ended, width=60)
        return Group(Text(head, style="bold"), bar, table)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)


def summary_of(records: Mapping[str, Record]) -> str:
    """Such as `QUEUED 3  LAUNCHED 8  SUCCESS 12`."""
    counts = Counter(record.state.value for record in records.values())
    return "  ".join(f"{state} {counts[state]}" for state in STATES if counts[state])


def _row(record: Record, command: str) -> list[str]:
    exit_code = "" if record.exit_code is None else str(record.exit_code)
    attempt = str(record.attempts if record.ended else record.attempt)
    status = "" if record.ended else record.last_status
    cells = (record.id, shortened(command, 28), record.state.value, status, attempt, exit_code)
    return [*cells, "" if is_usual(record.state, record.exit_code) else shortened(record.reason, 48)]
