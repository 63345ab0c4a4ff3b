"""A DAG of short mapped tasks on a whole Airflow, ten at a time: how long its run takes with each executor.

One Airflow has all executors, so that all sides have the same scheduler, API server and database: EcsQueueExecutor with
a warm and preloaded queue, a warm one and a cold one, CeleryExecutor and LocalExecutor. All but the cold one are warmed
up first. The interpreter `BENCH_AIRFLOW_PYTHON` runs it (`make bench` sets it), otherwise this one. The local ECS takes
`BENCH_PROVISION_SECONDS` to start a container, by default none.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from statistics import median

import msgspec

from bench import airflow
from bench.airflow_dag_sides import CELERY, COLD, LOCAL, PRELOADED, SIDES, WARM, Run, Side, TaskTimes
from bench.measurement import Measurement, median_and_range

MODULES = ("airflow", "airflow.providers.celery", "psutil", "ecs_queue")
#: Of all sides together. Two cores that do nothing else take less; no further round begins after a third of it.
TIME_LIMIT_SECONDS = 720
_PROVISION_VARIABLE = "BENCH_PROVISION_SECONDS"
#: Where a task's time goes: from one moment to the next.
_PHASES: tuple[tuple[str, str, str], ...] = (
    ("queued to submitted (executor)", "queued", "submitted"),
    ("submitted to launched, or given to a runner (worker)", "submitted", "launched"),
    ("launched to running (runner, Airflow's program and supervisor)", "launched", "started"),
    ("running to ended (task, API calls)", "started", "ended"),
    ("ended to the request's end (the supervisor's exit, runner, worker)", "ended", "finished"),
)


def run(tasks: int) -> list[Measurement]:
    """See `bench.__main__`."""
    if not airflow.is_installed(MODULES):
        raise SystemExit(
            f"{airflow.python()} lacks one of {', '.join(MODULES)}; make bench installs them and runs this"
        )
    provision = os.environ.get(_PROVISION_VARIABLE, "0")
    command = [airflow.python(), "-W", "ignore", "-m", "bench.airflow_dag_sides", "--tasks", str(tasks)]
    options = ["--provision-seconds", provision, "--seconds", str(TIME_LIMIT_SECONDS)]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, check=True, timeout=4 * TIME_LIMIT_SECONDS)
    runs = [msgspec.json.decode(line, type=Run) for line in done.stdout.splitlines()]
    by_side = {side: [one for one in runs if one.side == side.name] for side in SIDES}
    rows = [row for side, found in by_side.items() for row in _side_measurements(side, found)]
    return [*rows, *_ratio_measurements(by_side)]


def _side_measurements(side: Side, runs: Sequence[Run]) -> list[Measurement]:
    name = side.label
    walls = [one.wall for one in runs]
    tasks = [task for one in runs for task in one.tasks]
    rows = [
        Measurement(f"{name}: DAG run", f"{median_and_range(walls, 1)} s, {len(runs)} runs"),
        Measurement(f"{name}: tasks/s", f"{median(len(one.tasks) / one.wall for one in runs):.2f}"),
        Measurement(f"{name}: queued to running, p50", _format_phase(tasks, "queued", "started")),
    ]
    if side in (PRELOADED, WARM, COLD):
        calls = ", ".join(str(one.run_task_calls) for one in runs)
        rows.append(Measurement(f"{name}: RunTask calls", calls))
    for phase, start, end in _PHASES:
        value = _format_phase(tasks, start, end)
        if value:
            rows.append(Measurement(f"{name}: {phase}, p50", value))
    return [*rows, Measurement(f"{name}: processor time of a run", _format_cpu(runs))]


def _format_phase(tasks: Sequence[TaskTimes], start: str, end: str) -> str:
    moments = [(getattr(task, start), getattr(task, end)) for task in tasks]
    seconds = [last - first for first, last in moments if first is not None and last is not None]
    return f"{median(seconds):.2f} s" if seconds else ""


def _format_cpu(runs: Sequence[Run]) -> str:
    kinds = sorted({kind for one in runs for kind in one.cpu})
    seconds = {kind: median(one.cpu.get(kind, 0.0) for one in runs) for kind in kinds}
    return ", ".join(f"{kind} {used:.1f} s" for kind, used in seconds.items() if used >= 0.05)


def _ratio_measurements(by_side: dict[Side, list[Run]]) -> list[Measurement]:
    """Of the medians: some sides run once, and a round with a pool that still grows is not comparable with them."""

    def compare(other: Side, target: str) -> Measurement:
        ratio = median(run.wall for run in by_side[other]) / median(run.wall for run in by_side[PRELOADED])
        return Measurement(f"DAG run: {other.label} / {PRELOADED.label}", f"{ratio:.2f}", target, ratio)

    return [compare(CELERY, ">= 0.91"), compare(LOCAL, ""), compare(WARM, ""), compare(COLD, ">= 5")]
