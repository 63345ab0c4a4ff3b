"""Runs the two sides of a comparison at the same time, each with its own servers and process.

The load of a machine changes from one second to the next by more than some things cost. A side is a process
`python -m MODULE SIDE TASKS` that calls `run_side`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from bench.launches import ECS_LATENCY, THREADS, launch_rate, launch_submitted, submit
from bench.stack import Stack, running_stack

_READY_LINE = "ready"
#: Maximum duration of a side. Seconds.
_SIDE_TIMEOUT = 300


def run_round(module: str, sides: Sequence[str], tasks: int) -> dict[str, dict[str, float]]:
    """Return what each side has printed: `rate` (launches a second), `cpu_seconds` (of the worker, per launch) ..."""
    with ExitStack() as running:
        processes = {side: running.enter_context(_start(module, side, tasks)) for side in sides}
        for side, process in processes.items():
            assert process.stdout is not None
            if process.stdout.readline().strip() != _READY_LINE:
                raise RuntimeError(f"the side {side} did not start")
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return {side: json.loads(process.communicate(timeout=_SIDE_TIMEOUT)[0]) for side, process in processes.items()}


def run_side(
    tasks: int, settings: Mapping[str, Any], measure_more: Callable[[Stack], Mapping[str, float]] = lambda parts: {}
) -> None:
    """Submit a backlog, launch it with one worker when a line is read, and print the figures."""
    with running_stack(ECS_LATENCY, paused=True, concurrency=str(THREADS), **settings) as parts:
        submit(parts, tasks)
        print(_READY_LINE, flush=True)
        sys.stdin.readline()
        before = parts.cpu_seconds()["workers"]
        launch_submitted(parts, tasks)
        cost = (parts.cpu_seconds()["workers"] - before) / tasks
        figures = {"rate": launch_rate(tasks), "cpu_seconds": cost, **measure_more(parts)}
        print(json.dumps(figures), flush=True)


def _start(module: str, side: str, tasks: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", module, side, str(tasks)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
