"""The latency from a task's stop to its delivered result under an ordinary load, by polls and by events."""

from __future__ import annotations

from bench.measurement import Measurement
from bench.result_load import ResultFigures, measure
from bench.stack import quantile

#: All tasks end within this time. Seconds.
_END_WINDOW = 20.0


def run(tasks: int) -> list[Measurement]:
    """Measure by polls and by events. The tasks are young, as most tasks are: they are polled every second."""
    rows: list[Measurement] = []
    for how, by_events in (("by polls", False), ("by events", True)):
        found = measure(tasks, _END_WINDOW, by_events=by_events)
        name = f"{tasks} tasks end in {_END_WINDOW:g} s, {how}: stop to result"
        rows += [
            Measurement(f"{name}, p50", _format_delay(found, 0.5)),
            Measurement(f"{name}, p99", _format_delay(found, 0.99)),
        ]
        rows.append(Measurement("  DescribeTasks and ListTasks calls per finished task", f"{found.reads / tasks:.4f}"))
    return rows


def _format_delay(found: ResultFigures, share: float) -> str:
    return f"{quantile(found.delays, share) * 1000:.0f} ms"
