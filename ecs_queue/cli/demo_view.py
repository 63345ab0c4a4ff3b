"""Shows the demo while it runs: a live table on a terminal, otherwise plain lines."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ecs_queue.cli.demo_tasks import DemoTask
from ecs_queue.cli.ui.durations import format_duration
from ecs_queue.cli.ui.output import can_draw, fit_columns, print_stderr, rich_table, truncate
from ecs_queue.cli.ui.record_view import ran_to_exit
from ecs_queue.cli.ui.records import STATE_NAMES

if TYPE_CHECKING:
    from ecs_queue.protocol.record import Record

_PRINT_INTERVAL_SECONDS = 1.0
_MAX_ROWS = 14
_HEADERS = ("id", "state", "ECS", "attempt", "exit", "command", "reason")


@contextmanager
def open_demo_view(tasks: Sequence[DemoTask]) -> Iterator[DemoView]:
    """Open the view that suits stderr."""
    if not can_draw(sys.stderr):
        yield DemoView(tasks)
        return
    from rich.console import Console
    from rich.live import Live

    from ecs_queue.cli.ui.given_back_terminal import LINES, give_back_terminal

    live = Live(console=Console(stderr=True), transient=True, refresh_per_second=8)
    with give_back_terminal(sys.stderr, LINES), live:
        yield LiveDemoView(tasks, live)


class DemoView:
    """Prints a line about every second, when something has changed."""

    def __init__(self, tasks: Sequence[DemoTask]) -> None:
        self._tasks = tasks
        self._started_at = time.monotonic()
        self._printed_at = float("-inf")
        self._printed = ""

    def update(self, records: Mapping[str, Record]) -> None:
        """Show the present records."""
        now = time.monotonic()
        counts = format_state_counts(records)
        if counts != self._printed and now - self._printed_at >= _PRINT_INTERVAL_SECONDS:
            self._printed, self._printed_at = counts, now
            print_stderr(f"{format_duration(now - self._started_at)}  {counts}")


class LiveDemoView(DemoView):
    """Shows counts by state, a bar, and the requests that changed last."""

    def __init__(self, tasks: Sequence[DemoTask], live: Any) -> None:
        super().__init__(tasks)
        self._live = live
        self._recently_changed: dict[str, str] = {}  # id -> what was shown; the last one changed last

    def update(self, records: Mapping[str, Record]) -> None:
        """Show the present records."""
        for record_id, record in records.items():
            shown = f"{record.state} {record.attempt} {record.last_status}"
            if self._recently_changed.get(record_id) != shown:
                self._recently_changed.pop(record_id, None)
                self._recently_changed[record_id] = shown
        self._live.update(self._render(records))

    def _render(self, records: Mapping[str, Record]) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        ended = sum(record.is_terminal for record in records.values())
        head = f"{format_duration(time.monotonic() - self._started_at)}   {format_state_counts(records)}"
        commands = {task.id: task.display for task in self._tasks}
        shown = list(self._recently_changed)[-_MAX_ROWS:]
        rows = [_row(records[name], commands[name]) for name in shown if name in records]
        table = rich_table(*fit_columns(_HEADERS, rows, self._live.console.width), "ellipsis")
        bar = ProgressBar(total=len(self._tasks), completed=ended, width=60)
        return Group(Text(head, style="bold"), bar, table)


def format_state_counts(records: Mapping[str, Record]) -> str:
    """Return `QUEUED 3  LAUNCHED 8  SUCCESS 12`."""
    counts = Counter(record.state.value for record in records.values())
    return "  ".join(f"{state} {counts[state]}" for state in STATE_NAMES if counts[state])


def _row(record: Record, command: str) -> list[str]:
    exit_code = "" if record.exit_code is None else str(record.exit_code)
    attempt = str(record.attempts_made)
    status = "" if record.is_terminal else record.last_status
    cells = (record.id, record.state.value, status, attempt, exit_code, truncate(command, 28))
    return [*cells, "" if ran_to_exit(record.state, record.exit_code) else truncate(record.reason, 48)]
