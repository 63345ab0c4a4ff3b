"""Reads and shows the timeline of a request: bars on a terminal, otherwise lines, or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecs_queue.cli.ui.durations import format_duration, format_timestamp
from ecs_queue.cli.ui.options import open_journal_reader
from ecs_queue.cli.ui.output import (
    STATE_STYLES,
    describe_number,
    is_terminal,
    knows_blocks,
    print_stderr,
    print_stdout,
    sanitize,
    write_stdout,
)
from ecs_queue.errors import JournalUnavailable, MissingRight

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.journal.timeline import LaunchTimeline, Timeline
    from ecs_queue.protocol.phases import Phase
    from ecs_queue.protocol.record import Record

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
#: The shortest bar, as a part of the whole width.
_MIN_BAR_FRACTION = 0.01


def read_timeline(client: EcsQueue, record: Record | None, record_id: str) -> Timeline | None:
    """Return a request's timeline from the journal or, when it cannot be read, from the record alone."""
    from ecs_queue.journal.timeline import build_timeline

    try:
        with open_journal_reader(client.config) as journal:
            if journal.is_readable():
                return build_timeline(record, journal.request_events(record_id), record_id)
            print_stderr("ecs-queue: this user of the server may not read the journal: only the last attempt is shown")
    except (JournalUnavailable, MissingRight) as error:
        print_stderr(f"ecs-queue: {error}")
    return build_timeline(record, (), record_id)  # the record alone gives the last attempt


def warn_about_events(timeline: Timeline | None) -> None:
    """Print what the timeline leaves out, and what it shows although no signing key verifies it."""
    if timeline is not None and timeline.unused_events:
        print_stderr(f"ecs-queue: {describe_number(timeline.unused_events, 'event')} of the journal left out as broken")
    if timeline is not None and timeline.unverified_events:
        print_stderr(
            f"ecs-queue: {describe_number(timeline.unverified_events, 'event')} of the journal not signed with a key "
            "of signing_keys: the timeline may be wrong, the record is not"
        )


def timeline_to_dicts(timeline: Timeline) -> list[dict[str, Any]]:
    """Return one JSON-ready object a launch. Times are RFC 3339; `seconds` is None for a phase that goes on."""
    return [
        {
            "launch": launch.launch,
            "attempt": launch.attempt,
            "worker": launch.worker or None,
            "task_arn": launch.arn or None,
            "calls": launch.run_task_calls,
            "result": launch.result or None,
            "reason": launch.reason,
            "exit_code": launch.exit_code,
            "phases": [
                {
                    "name": phase.name,
                    "start": format_timestamp(phase.start),
                    "end": format_timestamp(phase.end or 0.0),
                    "seconds": None if phase.end is None else round(phase.seconds(phase.end), 3),
                }
                for phase in launch.phases
            ],
        }
        for launch in timeline.launches
    ]


def timeline_summary(timeline: Timeline) -> dict[str, Any]:
    """Return what the journal knows of a request whose record is gone, JSON-ready."""
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
    """Print every launch with its phases. `now` is the ledger's clock, seconds since the epoch."""
    if is_terminal() and knows_blocks():
        _print_bars(timeline, now)
        return
    for launch in timeline.launches:
        print_stdout("")
        print_stdout(_heading(launch))
        phases = (
            f"{phase.name:{_NAME_WIDTH}}  {_phase_duration(phase, now):>{_TIME_WIDTH}}" for phase in launch.phases
        )
        for line in filter(None, (launch.arn, *phases, _launch_end(launch))):
            write_stdout(f"  {sanitize(line)}")


def _print_bars(timeline: Timeline, now: float) -> None:
    from rich.console import Console, Group
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    axis = (timeline.start, timeline.end or max(now, timeline.start))
    for launch in timeline.launches:
        parts: list[Any] = [Text(sanitize(launch.arn), style="dim", overflow="fold")] if launch.arn else []
        parts.append(_phase_bars(launch, axis, now))
        if _launch_end(launch):
            parts.append(Text(sanitize(_launch_end(launch)), style=STATE_STYLES.get(launch.result, "")))
        console.print()
        console.print(Text(sanitize(_heading(launch)), style="bold"))
        console.print(Padding(Group(*parts), (0, 0, 0, 2)))


def _phase_bars(launch: LaunchTimeline, axis: tuple[float, float], now: float) -> Any:
    """All launches share one axis: bars below each other happened at the same time."""
    from rich.bar import Bar
    from rich.table import Table

    size = max(axis[1] - axis[0], 1e-3)
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(width=_NAME_WIDTH, no_wrap=True)
    grid.add_column(width=_TIME_WIDTH, no_wrap=True, justify="right")
    grid.add_column(ratio=1)
    for phase in launch.phases:
        begin = min(phase.start - axis[0], size * (1 - _MIN_BAR_FRACTION))
        end = (now if phase.end is None else phase.end) - axis[0]
        bar = Bar(size, begin, min(size, max(end, begin + size * _MIN_BAR_FRACTION)), color=_PHASE_COLOURS[phase.name])
        grid.add_row(phase.name, _phase_duration(phase, now), bar)
    return grid


def _phase_duration(phase: Phase, now: float) -> str:
    return format_duration(phase.seconds(now)) + (" so far" if phase.end is None else "")


def _heading(launch: LaunchTimeline) -> str:
    parts = [f"attempt {launch.attempt}" if launch.attempt else "no attempt"]
    if launch.launch != launch.attempt:
        parts.append(f"launch {launch.launch}")
    if launch.run_task_calls > 1:
        parts.append(f"{launch.run_task_calls} RunTask calls")
    if launch.worker:
        parts.append(f"worker {launch.worker}")
    return ", ".join(parts)


def _launch_end(launch: LaunchTimeline) -> str:
    """Return how the launch ended, or why the request waits."""
    exited = "" if launch.exit_code is None else f", exit {launch.exit_code}"
    because = f": {launch.reason}" if launch.reason else ""
    if launch.result:
        return f"{launch.result}{exited}{because}"
    return f"waits{because}" if launch.reason else ""
