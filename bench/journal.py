"""Launches a second of one worker with the journal on and off, both at the same time, and what the journal takes.

What the machine does otherwise changes from one second to the next by more than the journal costs, so the two sides
run side by side, each with a Redis, a stand-in and a process of its own (`python -m bench.journal on TASKS`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from statistics import median
from typing import NamedTuple

from bench.launches import LATENCY, THREADS, launch_submitted, rate, submit
from bench.row import Row, spread
from bench.stack import Stack, stack, until
from ecs_queue.config import load_config
from ecs_queue.journal import open_journal

#: The median counts.
_TURNS = 5
_SIDES = {"on": "True", "off": "False"}
_READY = "ready"
#: What a side may take, at the slowest. Seconds.
_LONGEST = 300


class _Side(NamedTuple):
    """Launches a second; seconds of the worker's processor time, and bytes of the journal, a launch."""

    rate: float
    cost: float
    size: float


def run(tasks: int) -> list[Row]:
    """`tasks` for each side of a turn."""
    turns = [_turn(tasks) for _ in range(_TURNS)]
    ratios = [turn["on"].rate / turn["off"].rate for turn in turns]
    costs = [turn["off"].cost / turn["on"].cost for turn in turns]
    return [
        *(Row(f"launches/s, journal {side}", spread([turn[side].rate for turn in turns], 0)) for side in _SIDES),
        Row("launches, journal on / off", spread(ratios), ">= 0.95", median(ratios)),
        *(Row(f"worker's processor time a launch, journal {side}", _milliseconds(turns, side)) for side in _SIDES),
        Row("worker's processor time a launch, journal off / on", spread(costs), "", median(costs)),
        Row("journal, bytes a launch", f"{median(turn['on'].size for turn in turns):.0f}"),
    ]


def _milliseconds(turns: list[dict[str, _Side]], side: str) -> str:
    return f"{1000 * median(turn[side].cost for turn in turns):.2f} ms"


def _turn(tasks: int) -> dict[str, _Side]:
    with ExitStack() as running:
        sides = {side: running.enter_context(_started(side, tasks)) for side in _SIDES}
        for side, process in sides.items():
            assert process.stdout is not None
            if process.stdout.readline().strip() != _READY:
                raise RuntimeError(f"the side {side} did not start")
        for process in sides.values():
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return {side: _Side(**json.loads(process.communicate(timeout=_LONGEST)[0])) for side, process in sides.items()}


def _started(side: str, tasks: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.journal", side, str(tasks)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def main() -> None:
    """One side: a backlog, and when a line comes its launches."""
    side, tasks = sys.argv[1], int(sys.argv[2])
    with stack(LATENCY, paused=True, concurrency=str(THREADS), journal=_SIDES[side]) as parts:
        submit(parts, tasks)
        print(_READY, flush=True)
        sys.stdin.readline()
        before = parts.processor_seconds()["workers"]
        launch_submitted(parts, tasks)
        cost = (parts.processor_seconds()["workers"] - before) / tasks
        size = _size(parts, tasks) if side == "on" else 0.0
        print(json.dumps(_Side(rate(tasks), cost, size)._asdict()), flush=True)


def _size(parts: Stack, tasks: int) -> float:
    """All launches must be in it, else it was off, or too slow."""
    journal = open_journal(load_config(environ=parts.environ))
    try:
        until(lambda: sum(event.name == "launch.started" for event in journal.all()) >= tasks, 60, every=1.0)
        return journal.size()[1] / tasks
    finally:
        journal.close()


if __name__ == "__main__":
    main()
