"""A request's timeline: on a terminal bars with durations, for others lines, for machines JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.output import STATE_STYLES, format_duration, is_terminal, print_stdout, sanitize
from ecs_queue.cli.ui.record_view import format_timestamp

if TYPE_CHECKING:
    from ecs_queue.journal.timeline import LaunchTimeline, Phase, Timeline

_PHASE_COLOURS = {
    "wait": "bright_black",
    "launch": "yellow",
    "provision": "blue",
    "pull": "magenta",
    "start": "cyan",
    "run": "green",
    "stop": "red",
}
_NAME_WIDTH, _TIME_WIDTH = 9, 16
#: What is too short to be seen is drawn so long, as a part of the whole.
_MIN_BAR_FRACTION = 0.01


def timeline_to_dicts(timeline: Timeline) -> list[dict[str, Any]]:
    """JSON-ready: one object a launch; times are RFC 3339, `seconds` is None for a phase that goes on."""
    return [
        {
            "launch": one.launch,
            "attempt": one.attempt,
            "worker": one.worker or None,
            "task_arn": one.arn or None,
            "calls": one.run_task_calls,
            "result": one.result or None,
            "reason": one.reason,
            "exit_code": one.exit_code,
            "phases": [
                {
                    "name": phase.name,
                    "start": format_timestamp(phase.start),
                    "end": format_timestamp(phase.end or 0.0),
                    "seconds": None if phase.end is None else round(phase.seconds(phase.end), 3),
                }
                for phase in one.phases
            ],
        }
        for one in timeline.launches
    ]


def timeline_summary(timeline: Timeline) -> dict[str, Any]:
    """What the journal alone can say of a request whose record is gone; JSON-ready."""
    last = timeline.launches[-1]
    return {
        "state": last.result or None,
        "exit_code": last.exit_code,
        "attempts": last.attempt,
        "launch": last.launch,
        "task_arn": last.arn or None,
        "reason": last.reason,
        "queued_at": format_timestamp(timeline.start),
        "finished_at": format_timestamp(timeline.end or 0.0),
    }


def print_timeline(timeline: Timeline, now: float) -> None:
    """Every launch with its phases. `now`: the ledger's clock."""
    if is_terminal():
        _print_bars(timeline, now)
        return
    for one in timeline.launches:
        print_stdout("")
        print_stdout(_attempt_heading(one))
        for words in (*filter(None, (one.arn,)), *_phase_lines(one, now), *filter(None, (_attempt_result(one),))):
            click.echo(f"  {sanitize(words)}".encode("utf-8", "backslashreplace"))


def _print_bars(timeline: Timeline, now: float) -> None:
    from rich.console import Console, Group
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    axis = (timeline.start, timeline.end or max(now, timeline.start))
    for one in timeline.launches:
        parts: list[Any] = [Text(sanitize(one.arn), style="dim", overflow="fold")] if one.arn else []
        parts.append(_phase_bars(one, axis, now))
        if _attempt_result(one):
            parts.append(Text(sanitize(_attempt_result(one)), style=STATE_STYLES.get(one.result, "")))
        console.print()
        console.print(Text(sanitize(_attempt_heading(one)), style="bold"))
        console.print(Padding(Group(*parts), (0, 0, 0, 2)))


def _phase_bars(one: LaunchTimeline, axis: tuple[float, float], now: float) -> Any:
    """All launches on one axis: what stands below each other happened at the same time."""
    from rich.bar import Bar
    from rich.table import Table

    size = max(axis[1] - axis[0], 1e-3)
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(width=_NAME_WIDTH, no_wrap=True)
    grid.add_column(width=_TIME_WIDTH, no_wrap=True, justify="right")
    grid.add_column(ratio=1)
    for phase in one.phases:
        begin = phase.start - axis[0]
        end = (now if phase.end is None else phase.end) - axis[0]
        begin = min(begin, size * (1 - _MIN_BAR_FRACTION))
        bar = Bar(size, begin, min(size, max(end, begin + size * _MIN_BAR_FRACTION)), color=_PHASE_COLOURS[phase.name])
        grid.add_row(phase.name, _phase_duration(phase, now), bar)
    return grid


def _phase_lines(one: LaunchTimeline, now: float) -> Iterator[str]:
    return (f"{phase.name:{_NAME_WIDTH}}  {_phase_duration(phase, now):>{_TIME_WIDTH}}" for phase in one.phases)


def _phase_duration(phase: Phase, now: float) -> str:
    return format_duration(phase.seconds(now)) + (" so far" if phase.end is None else "")


def _attempt_heading(one: LaunchTimeline) -> str:
    words = [f"attempt {one.attempt}"]
    if one.launch != one.attempt:
        words.append(f"launch {one.launch}")
    if one.run_task_calls > 1:
        words.append(f"{one.run_task_calls} RunTask calls")
    if one.worker:
        words.append(f"worker {one.worker}")
    return ", ".join(words)


def _attempt_result(one: LaunchTimeline) -> str:
    """How it ended, or why it waits."""
    exited = "" if one.exit_code is None else f", exit {one.exit_code}"
    because = f": {one.reason}" if one.reason else ""
    if one.result:
        return f"{one.result}{exited}{because}"
    return f"waits{because}" if one.reason else ""
