"""Launches per second of one worker with the journal on and off, measured at the same time, and the journal's size."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median

from bench.measurement import Measurement, median_and_range
from bench.side_by_side import run_round, run_side
from bench.stack import Stack, wait_until
from ecs_queue.config import load_config
from ecs_queue.journal import open_journal

#: Rounds; the median counts.
_ROUNDS = 5
_SIDES = {"on": "True", "off": "False"}


def run(tasks: int) -> list[Measurement]:
    """Measure each side with `tasks` tasks per round."""
    rounds = [run_round("bench.journal", list(_SIDES), tasks) for _ in range(_ROUNDS)]
    ratios = [round_["on"]["rate"] / round_["off"]["rate"] for round_ in rounds]
    costs = [round_["off"]["cpu_seconds"] / round_["on"]["cpu_seconds"] for round_ in rounds]
    return [
        *(
            Measurement(f"launches/s, journal {side}", median_and_range([round_[side]["rate"] for round_ in rounds], 0))
            for side in _SIDES
        ),
        Measurement("launches, journal on / off", median_and_range(ratios), ">= 0.95", median(ratios)),
        *(Measurement(f"worker CPU time per launch, journal {side}", _format_cpu(rounds, side)) for side in _SIDES),
        Measurement("worker CPU time per launch, journal off / on", median_and_range(costs), "", median(costs)),
        Measurement("journal bytes per launch", f"{median(round_['on']['journal_bytes'] for round_ in rounds):.0f}"),
    ]


def _format_cpu(rounds: Sequence[Mapping[str, Mapping[str, float]]], side: str) -> str:
    return f"{1000 * median(round_[side]['cpu_seconds'] for round_ in rounds):.2f} ms"


def main() -> None:
    """Run one side."""
    side, tasks = sys.argv[1], int(sys.argv[2])
    run_side(tasks, {"journal": _SIDES[side]}, partial(_measure_journal, tasks))


def _measure_journal(tasks: int, parts: Stack) -> dict[str, float]:
    """The journal's bytes per launch, when it has all launches."""
    if parts.environ["AIRFLOW__ECS_QUEUE__JOURNAL"] == _SIDES["off"]:
        return {}
    journal = open_journal(load_config(environ=parts.environ))
    try:
        wait_until(
            lambda: sum(event.name == "launch.started" for event in journal.all_events()) >= tasks, 60, interval=1.0
        )
        return {"journal_bytes": journal.size()[1] / tasks}
    finally:
        journal.close()


if __name__ == "__main__":
    main()
