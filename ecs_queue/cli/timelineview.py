"""A request's timeline: on a terminal bars with durations, for others lines, for machines JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.facts import moment_text
from ecs_queue.cli.output import STYLES, clean, duration, is_watched, show

if TYPE_CHECKING:
    from ecs_queue.journal.timeline import Attempt, Phase, Timeline

_COLOURS = {
    "wait": "bright_black",
    "launch": "yellow",
    "provision": "blue",
    "pull": "magenta",
    "start": "cyan",
    "run": "green",
    "stop": "red",
}
_NAME, _TIME = 9, 16
#: What is too short to be seen is drawn so long, as a part of the whole.
_SEEN = 0.01


def timeline_facts(timeline: Timeline) -> list[dict[str, Any]]:
    """JSON-ready: one object a launch; times are RFC 3339, `seconds` is None for a phase that goes on."""
    return [
        {
            "launch": one.launch,
            "attempt": one.attempt,
            "worker": one.worker or None,
            "task_arn": one.arn or None,
            "calls": one.calls,
            "result": one.result or None,
            "reason": one.reason,
            "exit_code": one.exit_code,
            "phases": [
                {
                    "name": phase.name,
                    "start": moment_text(phase.start),
                    "end": moment_text(phase.end or 0.0),
                    "seconds": None if phase.end is None else round(phase.seconds(phase.end), 3),
                }
                for phase in one.phases
            ],
        }
        for one in timeline.attempts
    ]


def facts_of_end(timeline: Timeline) -> dict[str, Any]:
    """What the journal alone can say of a request whose record is gone; JSON-ready."""
    last = timeline.attempts[-1]
    return {
        "state": last.result or None,
        "exit_code": last.exit_code,
        "attempts": last.attempt,
        "launch": last.launch,
        "task_arn": last.arn or None,
        "reason": last.reason,
        "queued_at": moment_text(timeline.start),
        "finished_at": moment_text(timeline.end or 0.0),
    }


def show_timeline(timeline: Timeline, now: float) -> None:
    """Every launch with its phases. `now`: the ledger's clock."""
    if is_watched():
        _draw(timeline, now)
        return
    for one in timeline.attempts:
        show("")
        show(_head(one))
        for words in (*filter(None, (one.arn,)), *_phase_lines(one, now), *filter(None, (_end(one),))):
            click.echo(f"  {clean(words)}".encode("utf-8", "backslashreplace"))


def _draw(timeline: Timeline, now: float) -> None:
    from rich.console import Console, Group
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    axis = (timeline.start, timeline.end or max(now, timeline.start))
    for one in timeline.attempts:
        parts: list[Any] = [Text(clean(one.arn), style="dim", overflow="fold")] if one.arn else []
        parts.append(_bars(one, axis, now))
        if _end(one):
            parts.append(Text(clean(_end(one)), style=STYLES.get(one.result, "")))
        console.print()
        console.print(Text(clean(_head(one)), style="bold"))
        console.print(Padding(Group(*parts), (0, 0, 0, 2)))


def _bars(one: Attempt, axis: tuple[float, float], now: float) -> Any:
    """All launches on one axis: what stands below each other happened at the same time."""
    from rich.bar import Bar
    from rich.table import Table

    size = max(axis[1] - axis[0], 1e-3)
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(width=_NAME, no_wrap=True)
    grid.add_column(width=_TIME, no_wrap=True, justify="right")
    grid.add_column(ratio=1)
    for phase in one.phases:
        begin = phase.start - axis[0]
        end = (now if phase.end is None else phase.end) - axis[0]
        begin = min(begin, size * (1 - _SEEN))
        bar = Bar(size, begin, min(size, max(end, begin + size * _SEEN)), color=_COLOURS[phase.name])
        grid.add_row(phase.name, _took(phase, now), bar)
    return grid


def _phase_lines(one: Attempt, now: float) -> Iterator[str]:
    return (f"{phase.name:{_NAME}}  {_took(phase, now):>{_TIME}}" for phase in one.phases)


def _took(phase: Phase, now: float) -> str:
    return duration(phase.seconds(now)) + (" so far" if phase.end is None else "")


def _head(one: Attempt) -> str:
    words = [f"attempt {one.attempt}"]
    if one.launch != one.attempt:
        words.append(f"launch {one.launch}")
    if one.calls > 1:
        words.append(f"{one.calls} RunTask calls")
    if one.worker:
        words.append(f"worker {one.worker}")
    return ", ".join(words)


def _end(one: Attempt) -> str:
    """How it ended, or why it waits."""
    exited = "" if one.exit_code is None else f", exit {one.exit_code}"
    because = f": {one.reason}" if one.reason else ""
    if one.result:
        return f"{one.result}{exited}{because}"
    return f"waits{because}" if one.reason else ""
