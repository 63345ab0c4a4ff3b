"""The demo's view while it runs: a moving table when a person looks, plain lines when not."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ecs_queue.cli.demo_tasks import DemoTask
from ecs_queue.cli.status import STATE_NAMES
from ecs_queue.cli.ui.output import format_duration, is_terminal, print_stderr, rich_table, truncate
from ecs_queue.cli.ui.record_view import ran_to_exit

if TYPE_CHECKING:
    from ecs_queue.protocol.record import Record

_PRINT_INTERVAL_SECONDS = 1.0
_MAX_ROWS = 14


def make_demo_view(tasks: Sequence[DemoTask]) -> DemoView:
    """The view that suits stderr."""
    return LiveDemoView(tasks) if is_terminal(sys.stderr) else DemoView(tasks)


class DemoView:
    """A line about every second, when something has changed."""

    def __init__(self, tasks: Sequence[DemoTask]) -> None:
        self._tasks = tasks
        self._started = time.monotonic()
        self._printed_at = float("-inf")
        self._printed = ""

    def update(self, records: Mapping[str, Record]) -> None:
        """The records as they are now."""
        now = time.monotonic()
        counts = format_state_counts(records)
        if counts != self._printed and now - self._printed_at >= _PRINT_INTERVAL_SECONDS:
            self._printed, self._printed_at = counts, now
            print_stderr(f"{format_duration(now - self._started)}  {counts}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class LiveDemoView(DemoView):
    """Counts by state, a bar, and the requests that moved last."""

    def __init__(self, tasks: Sequence[DemoTask]) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(tasks)
        self._live = Live(console=Console(stderr=True), transient=True, refresh_per_second=8)
        self._recently_changed: dict[str, str] = {}  # id -> what it was shown as; the last one moved last

    def update(self, records: Mapping[str, Record]) -> None:
        """The records as they are now."""
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
        head = f"{format_duration(time.monotonic() - self._started)}   {format_state_counts(records)}"
        commands = {task.id: task.display for task in self._tasks}
        rows = [
            _row(records[name], commands[name]) for name in list(self._recently_changed)[-_MAX_ROWS:] if name in records
        ]
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


def format_state_counts(records: Mapping[str, Record]) -> str:
    """Such as `QUEUED 3  LAUNCHED 8  SUCCESS 12`."""
    counts = Counter(record.state.value for record in records.values())
    return "  ".join(f"{state} {counts[state]}" for state in STATE_NAMES if counts[state])


def _row(record: Record, command: str) -> list[str]:
    exit_code = "" if record.exit_code is None else str(record.exit_code)
    attempt = str(record.attempts if record.is_terminal else record.attempt)
    status = "" if record.is_terminal else record.last_status
    cells = (record.id, truncate(command, 28), record.state.value, status, attempt, exit_code)
    return [*cells, "" if ran_to_exit(record.state, record.exit_code) else truncate(record.reason, 48)]
