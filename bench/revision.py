"""Compares this tree with another revision, side by side in one run: `python -m bench.revision 8bc9e5b`.

The other revision is checked out into a temporary folder and runs with the packages that are installed here. Each round
launches the same backlog with one worker of each side and with boto3 alone, on the same fake ECS; receives and
acknowledges a backlog of messages; and, where Airflow is installed, submits workloads in heartbeats of a scheduler.
Submitting, pausing and resuming are commands of the side's own `ecs-queue`, so that any revision that has them can be
compared.

Airflow is that of the interpreter `BENCH_AIRFLOW_PYTHON`, otherwise of .venv-airflow, which `make airflow-bench` makes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from bench import launches
from bench.airflow import airflow_environment
from bench.measurement import median_and_range
from bench.stack import Stack, running_stack, wait_until
from ecs_queue.local.redis_server import RedisServer

_HERE = Path(__file__).parents[1]
_AIRFLOW_PYTHON = os.environ.get("BENCH_AIRFLOW_PYTHON") or str(_HERE / ".venv-airflow/bin/python")
#: Messages of a backlog, workloads of a heartbeat, and heartbeats of a round, of which the median counts.
_MESSAGES, _WORKLOADS, _HEARTBEATS = 8000, 1000, 3
#: Rounds with heartbeats: to start Airflow takes longer than everything else of a round.
_HEARTBEAT_ROUNDS = 2
#: A round's figures of one side by the names in `_ROWS`.
_Figures = dict[str, float]


class _Row(NamedTuple):
    """A line of the table: its title, its decimal places, and whether boto3 alone has the figure, too."""

    title: str
    digits: int = 2
    has_boto3: bool = False


_ROWS = {
    "launches/s": _Row("launches/s", 0, has_boto3=True),
    "workers": _Row("worker's CPU ms a launch", has_boto3=True),
    "Redis": _Row("Redis's CPU ms a launch"),
    "messages/s": _Row("received and acknowledged messages/s", 0),
    "message": _Row("CPU us a message", 0),
    "heartbeat": _Row(f"heartbeat of {_WORKLOADS:,} workloads, ms", 0),
    "heartbeat CPU": _Row("its CPU ms", 0),
}


def main() -> None:
    """Print the figures of each side and their ratios within a round."""
    parser = argparse.ArgumentParser(prog="python -m bench.revision", description=__doc__)
    parser.add_argument("revision", help="a commit of this repository")
    parser.add_argument("--size", type=int, default=3000, help="launches of a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (%(default)s)")
    arguments = parser.parse_args()
    with checked_out(arguments.revision) as tree:
        trees = {arguments.revision: tree, "this tree": _HERE}
        rounds = [
            _run_round(trees, arguments.size, with_heartbeats=number < _HEARTBEAT_ROUNDS)
            for number in range(arguments.rounds)
        ]
    _print_table(rounds, arguments.revision)


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """Yield a temporary folder with the files of a revision."""
    with tempfile.TemporaryDirectory(prefix="ecs-queue-revision-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(_HERE), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", str(tree), revision], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def _run_round(trees: dict[str, Path], tasks: int, *, with_heartbeats: bool) -> dict[str, _Figures]:
    with running_stack(launches.ECS_LATENCY, workers=0) as parts:
        found = {"boto3 alone": _figures(launches.measure(parts, tasks, launches.launch_with_boto3))}
        found["boto3 alone"]["workers"] = found["boto3 alone"].pop("client")  # it runs in this process
    for side, tree in trees.items():
        found[side] = {**_launch_with_worker(tree, tasks), **_receive_backlog(tree)}
        if with_heartbeats:
            found[side] |= _run_heartbeats(tree)
    return found


def _launch_with_worker(tree: Path, tasks: int) -> _Figures:
    """Launch with one worker of the revision in `tree`."""
    with ExitStack() as exit_stack:
        parts = exit_stack.enter_context(
            running_stack(launches.ECS_LATENCY, workers=0, concurrency=str(launches.THREADS))
        )
        # Without the second, Python would take the package from the working directory.
        parts.environ.update(PYTHONPATH=str(tree), PYTHONSAFEPATH="1")
        _run_command(parts, "queues", "pause", "default")
        _submit(parts, tasks)
        parts.start_worker(exit_stack)
        wait_until(lambda: bool(_run_command(parts, "workers", "--json").strip()), 60, interval=0.5)
        return _figures(launches.measure(parts, tasks, _launch_submitted))


def _receive_backlog(tree: Path) -> _Figures:
    """Publish, receive and acknowledge a backlog with the revision in `tree`."""
    with RedisServer() as server:
        environ = {**os.environ, "AIRFLOW__ECS_QUEUE__BROKER_URL": server.url}
        program = [sys.executable, str(_HERE / "bench/receive_backlog.py"), "--size", str(_MESSAGES)]
        found = _run_in_tree(tree, program, environ)
    return {"messages/s": found["rate"], "message": 1e6 * found["cpu"]}


def _run_heartbeats(tree: Path) -> _Figures:
    """Submit workloads with the executor of the revision in `tree`; nothing without Airflow."""
    if not Path(_AIRFLOW_PYTHON).exists():
        return {}
    with running_stack(launches.ECS_LATENCY, workers=0) as parts, tempfile.TemporaryDirectory() as home:
        environ = {**parts.environ, **airflow_environment(Path(home), parts.redis.url)}
        program = [_AIRFLOW_PYTHON, "-W", "ignore", str(_HERE / "bench/airflow_scheduler.py"), "ours", "heartbeat"]
        options = ["--size", str(_WORKLOADS), "--rounds", str(_HEARTBEATS)]
        found = _run_in_tree(tree, [*program, *options], environ)
    return {"heartbeat": 1e3 * found["wall"], "heartbeat CPU": 1e3 * found["cpu"]}


def _run_in_tree(tree: Path, program: list[str], environ: dict[str, str]) -> dict[str, float]:
    """Run a program of this tree with the package of `tree`; return the JSON of its last line."""
    environ = {**environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(program, env=environ, capture_output=True, check=False, timeout=300)
    if done.returncode:
        raise SystemExit(f"{' '.join(program)} failed with {tree.name}:\n{done.stderr.decode()}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _figures(found: launches.LaunchFigures) -> _Figures:
    return {"launches/s": found.rate, **{kind: 1000 * spent for kind, spent in found.cpu_seconds.items()}}


def _submit(parts: Stack, tasks: int) -> None:
    line = json.dumps({"command": launches.COMMAND}) + "\n"
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(line * tasks)
        file.flush()
        _run_command(parts, "submit", "--file", file.name)


def _launch_submitted(parts: Stack, tasks: int) -> None:
    _run_command(parts, "queues", "resume", "default")
    launches.wait_until_running(tasks)


def _run_command(parts: Stack, *arguments: str) -> str:
    command = [sys.executable, "-m", "ecs_queue", *arguments]
    done = subprocess.run(command, env={**os.environ, **parts.environ}, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def _print_table(rounds: list[dict[str, _Figures]], revision: str) -> None:
    sides = ["boto3 alone", revision, "this tree"]
    table = Table("measurement", *sides, f"this tree / {revision}", "this tree / boto3 alone", title="one worker")
    for kind, row in _ROWS.items():
        if kind not in rounds[0]["this tree"]:
            table.add_row(row.title, *[f"not measured: there is no {_AIRFLOW_PYTHON}"])
            continue
        compared = sides if row.has_boto3 else sides[1:]
        measured = [found for found in rounds if kind in found["this tree"]]
        cells = [median_and_range([found[side][kind] for found in measured], row.digits) for side in compared]
        ratios = [
            median_and_range([found["this tree"][kind] / found[side][kind] for found in measured])
            for side in reversed(compared[:-1])
        ]
        table.add_row(row.title, *[""] * (len(sides) - len(cells)), *cells, *ratios)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
