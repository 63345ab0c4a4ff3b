"""Launches a second of one worker with the journal on and off, turn by turn in one run, and what the journal takes."""

from __future__ import annotations

from statistics import median

from bench.launches import LATENCY, THREADS, launch_submitted, rate, submit
from bench.row import Row, spread
from bench.stack import Stack, stack, until
from ecs_queue.config import load_config
from ecs_queue.journal import open_journal

#: Turns of each side; the median counts, for a machine has its moods.
_TURNS = 5


def run(tasks: int) -> list[Row]:
    """`tasks` for each turn."""
    on, off, sizes = [], [], []
    for _ in range(_TURNS):
        with stack(LATENCY, paused=True, concurrency=str(THREADS), journal="False") as parts:
            off.append(_launch(parts, tasks))
        with stack(LATENCY, paused=True, concurrency=str(THREADS), journal="True") as parts:
            on.append(_launch(parts, tasks))
            sizes.append(_size(parts, tasks))
    (rate_on, cost_on), (rate_off, cost_off) = _middle(on), _middle(off)
    ratios = [with_it / without for (with_it, _), (without, _) in zip(on, off, strict=True)]
    return [
        Row("launches/s, journal off", f"{rate_off:.0f}"),
        Row("launches/s, journal on", f"{rate_on:.0f}"),
        Row("launches, journal on / off", spread(ratios), ">= 0.95", median(ratios)),
        Row("worker's processor time a launch, journal off", f"{1000 * cost_off:.2f} ms"),
        Row("worker's processor time a launch, journal on", f"{1000 * cost_on:.2f} ms"),
        Row("journal, bytes a launch", f"{median(sizes):.0f}"),
    ]


def _middle(turns: list[tuple[float, float]]) -> tuple[float, float]:
    return median(rate for rate, _ in turns), median(cost for _, cost in turns)


def _launch(parts: Stack, tasks: int) -> tuple[float, float]:
    """Launches a second, and the worker's processor time of one in seconds."""
    submit(parts, tasks)
    before = parts.processor_seconds()["workers"]
    launch_submitted(parts, tasks)
    return rate(tasks), (parts.processor_seconds()["workers"] - before) / tasks


def _size(parts: Stack, tasks: int) -> float:
    """All launches must be in it, else it was off, or too slow."""
    journal = open_journal(load_config(environ=parts.environ))
    try:
        until(lambda: sum(event.name == "launch.started" for event in journal.all()) >= tasks, 60, every=1.0)
        return journal.size()[1] / tasks
    finally:
        journal.close()
