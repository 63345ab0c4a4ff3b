"""From a task's stop to its delivered result under an ordinary load, by polls and by events."""

from __future__ import annotations

from bench.results import Found, measure
from bench.row import Row
from bench.stack import quantile

#: All tasks end within so long. Seconds.
_WINDOW = 20.0


def run(tasks: int) -> list[Row]:
    """See `bench.__main__`. The tasks are young, as most are: polls look at them every second."""
    rows: list[Row] = []
    for how, by_events in (("by polls", False), ("by events", True)):
        found = measure(tasks, _WINDOW, by_events=by_events)
        what = f"{tasks} tasks end in {_WINDOW:g} s, {how}: stop to result"
        rows += [Row(f"{what}, p50", _shown(found, 0.5)), Row(f"{what}, p99", _shown(found, 0.99))]
        rows.append(Row("  DescribeTasks and ListTasks calls a finished task", f"{found.reads / tasks:.4f}"))
    return rows


def _shown(found: Found, share: float) -> str:
    return f"{quantile(found.delays, share) * 1000:.0f} ms"
