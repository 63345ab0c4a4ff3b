"""Launches per second of one worker with the journal on and off, measured at the same time, and the journal's size.

The load of the machine changes from one second to the next by more than the journal costs. So both sides run at the
same time, each with its own Redis, fake ECS and process (`python -m bench.journal on TASKS`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from statistics import median
from typing import NamedTuple

from bench.launches import ECS_LATENCY, THREADS, launch_rate, launch_submitted, submit
from bench.measurement import Measurement, median_and_range
from bench.stack import Stack, running_stack, wait_until
from ecs_queue.config import load_config
from ecs_queue.journal import open_journal

#: Rounds; the median counts.
_ROUNDS = 5
_SIDES = {"on": "True", "off": "False"}
_READY_LINE = "ready"
#: Maximum duration of a side. Seconds.
_SIDE_TIMEOUT = 300


class _SideFigures(NamedTuple):
    """Launches per second; the worker's CPU seconds, and the journal's bytes, per launch."""

    rate: float
    cpu_seconds: float
    journal_bytes: float


def run(tasks: int) -> list[Measurement]:
    """Measure each side with `tasks` tasks per round."""
    rounds = [_run_round(tasks) for _ in range(_ROUNDS)]
    ratios = [round_["on"].rate / round_["off"].rate for round_ in rounds]
    costs = [round_["off"].cpu_seconds / round_["on"].cpu_seconds for round_ in rounds]
    return [
        *(
            Measurement(f"launches/s, journal {side}", median_and_range([round_[side].rate for round_ in rounds], 0))
            for side in _SIDES
        ),
        Measurement("launches, journal on / off", median_and_range(ratios), ">= 0.95", median(ratios)),
        *(Measurement(f"worker CPU time per launch, journal {side}", _format_cpu(rounds, side)) for side in _SIDES),
        Measurement("worker CPU time per launch, journal off / on", median_and_range(costs), "", median(costs)),
        Measurement("journal bytes per launch", f"{median(round_['on'].journal_bytes for round_ in rounds):.0f}"),
    ]


def _format_cpu(rounds: list[dict[str, _SideFigures]], side: str) -> str:
    return f"{1000 * median(round_[side].cpu_seconds for round_ in rounds):.2f} ms"


def _run_round(tasks: int) -> dict[str, _SideFigures]:
    with ExitStack() as running:
        sides = {side: running.enter_context(_start_side(side, tasks)) for side in _SIDES}
        for side, process in sides.items():
            assert process.stdout is not None
            if process.stdout.readline().strip() != _READY_LINE:
                raise RuntimeError(f"the side {side} did not start")
        for process in sides.values():
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return {
            side: _SideFigures(**json.loads(process.communicate(timeout=_SIDE_TIMEOUT)[0]))
            for side, process in sides.items()
        }


def _start_side(side: str, tasks: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.journal", side, str(tasks)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def main() -> None:
    """Run one side: submit a backlog, and launch it when a line is read."""
    side, tasks = sys.argv[1], int(sys.argv[2])
    with running_stack(ECS_LATENCY, paused=True, concurrency=str(THREADS), journal=_SIDES[side]) as parts:
        submit(parts, tasks)
        print(_READY_LINE, flush=True)
        sys.stdin.readline()
        before = parts.cpu_seconds()["workers"]
        launch_submitted(parts, tasks)
        cost = (parts.cpu_seconds()["workers"] - before) / tasks
        size = _journal_bytes(parts, tasks) if side == "on" else 0.0
        print(json.dumps(_SideFigures(launch_rate(tasks), cost, size)._asdict()), flush=True)


def _journal_bytes(parts: Stack, tasks: int) -> float:
    """The journal's bytes per launch, when it has all launches."""
    journal = open_journal(load_config(environ=parts.environ))
    try:
        wait_until(
            lambda: sum(event.name == "launch.started" for event in journal.all_events()) >= tasks, 60, interval=1.0
        )
        return journal.size()[1] / tasks
    finally:
        journal.close()


if __name__ == "__main__":
    main()
