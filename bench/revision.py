"""Compares this tree with another revision, side by side in one run: `python -m bench.revision 8bc9e5b`.

The other revision is checked out into a temporary folder and runs with the packages that are installed here. Each round
launches the same backlog with one worker of each side and with boto3 alone, on the same fake ECS, and where pycurl is
installed with a worker of this tree whose `http_client` is curl; receives and acknowledges a backlog of messages; and,
where Airflow is installed, submits workloads in heartbeats of a scheduler.
Redis's instructions are counted once, where valgrind is installed. Submitting, pausing and resuming are commands of the
side's own `ecs-queue`, so that any revision that has them can be compared. The table is that of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench import launches, redis_instructions
from bench.airflow import airflow_environment
from bench.measurement import Measurement, median_and_range
from bench.revision_tree import HERE, checked_out, has_revision, package_of, run_command, submit_lines
from bench.stack import Stack, running_stack, wait_until
from ecs_queue.local.redis_server import RedisServer

#: The revision that the aims are about.
BASE_REVISION = "8bc9e5b"
_AIRFLOW_PYTHON = os.environ.get("BENCH_AIRFLOW_PYTHON") or str(HERE / ".venv-airflow/bin/python")
#: Messages of a backlog, workloads of a heartbeat, and heartbeats of a round, of which the median counts.
_MESSAGES, _WORKLOADS, _HEARTBEATS = 8000, 1000, 3
#: Rounds with heartbeats: to start Airflow takes longer than everything else of a round.
_HEARTBEAT_ROUNDS = 2
_ROUNDS = 3
#: Requests for which Redis's instructions are counted.
_COUNTED_REQUESTS = 200
_BOTO3, _THIS_TREE, _CURL = "boto3 alone", "this tree", "this tree with curl"
#: A round's figures of one side by the names in `_ROWS`.
_Figures = dict[str, float]
#: The figures of each side.
_Round = dict[str, _Figures]


class _Row(NamedTuple):
    """A line of the table.

    Attributes:
        title: What is measured.
        digits: Decimal places.
        has_boto3: Whether boto3 alone has the figure, too.
        aim: Of the ratio to the other revision; "" for none.
        boto3_aim: Of the ratio to boto3 alone.
        needs: What must be installed.
    """

    title: str
    digits: int = 2
    has_boto3: bool = False
    aim: str = ""
    boto3_aim: str = ""
    needs: str = ""


_ROWS = {
    "launches/s": _Row("launches per second", 0, has_boto3=True, boto3_aim=">= 0.85"),
    "workers": _Row("the worker's CPU ms for a launch", has_boto3=True, aim="<= 0.75"),
    "Redis": _Row("Redis's CPU ms for a launch", aim="<= 1"),
    "instructions": _Row("Redis's million instructions for a request with four polls", aim="<= 1", needs="valgrind"),
    "messages/s": _Row("received and acknowledged messages per second", 0, aim=">= 2"),
    "message": _Row("the consumer's CPU us for a message", 0),
    "heartbeat": _Row(f"heartbeat of {_WORKLOADS:,} workloads, ms", 0, needs="Airflow"),
    "heartbeat CPU": _Row(f"heartbeat of {_WORKLOADS:,} workloads, CPU ms", 0, aim="<= 0.8", needs="Airflow"),
}


def main() -> None:
    """Print the figures of each side and their ratios within a round."""
    parser = argparse.ArgumentParser(prog="python -m bench.revision", description=__doc__)
    parser.add_argument("revision", help="a commit of this repository")
    parser.add_argument("--size", type=int, default=3000, help="launches of a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="number of rounds (%(default)s)")
    arguments = parser.parse_args()
    print(_format_table(_run_rounds(arguments.revision, arguments.size, arguments.rounds), arguments.revision))


def is_possible() -> bool:
    """Return whether this is a repository that has the revision of the aims."""
    return has_revision(BASE_REVISION)


def run(tasks: int) -> list[Measurement]:
    """Compare with the revision of the aims, `tasks` launches a round; print the table, and return its ratios."""
    if not is_possible():
        raise SystemExit(f"revision: this is no clone of the repository with the commit {BASE_REVISION}")
    rounds = _run_rounds(BASE_REVISION, tasks, _ROUNDS)
    print(_format_table(rounds, BASE_REVISION), flush=True)
    found = []
    for kind, row in _ROWS.items():
        for side, aim in ((BASE_REVISION, row.aim), (_BOTO3, row.boto3_aim)):
            ratios = _ratios(rounds, kind, side)
            if aim and ratios:
                # The baseline keeps ratios of which more is better.
                ratio = median(ratios) if aim.startswith(">") else None
                found.append(Measurement(f"{row.title} / {side}", median_and_range(ratios), aim, ratio))
    return found


def _run_rounds(revision: str, tasks: int, number: int) -> list[_Round]:
    with checked_out(revision) as tree:
        trees = {revision: tree, _THIS_TREE: HERE}
        rounds = [_run_round(trees, tasks, with_heartbeats=each < _HEARTBEAT_ROUNDS) for each in range(number)]
        if redis_instructions.is_possible():
            for side, its_tree in trees.items():
                instructions = redis_instructions.count_instructions(its_tree, _COUNTED_REQUESTS)
                rounds[0][side]["instructions"] = instructions / 1e6
    return rounds


def _run_round(trees: dict[str, Path], tasks: int, *, with_heartbeats: bool) -> _Round:
    with running_stack(launches.ECS_LATENCY, workers=0) as parts:
        found: _Round = {_BOTO3: _figures(launches.measure(parts, tasks, launches.launch_with_boto3))}
        found[_BOTO3]["workers"] = found[_BOTO3].pop("client")  # it runs in this process
    for side, tree in trees.items():
        found[side] = {**_launch_with_worker(tree, tasks), **_receive_backlog(tree)}
        if with_heartbeats:
            found[side] |= _run_heartbeats(tree)
    if find_spec("pycurl") is not None:
        found[_CURL] = _launch_with_worker(HERE, tasks, http_client="curl")
    return found


def _launch_with_worker(tree: Path, tasks: int, **settings: str) -> _Figures:
    """Launch with one worker of the revision in `tree`; `settings` are keys of its [ecs_queue]."""
    with ExitStack() as exit_stack:
        parts = exit_stack.enter_context(
            running_stack(launches.ECS_LATENCY, workers=0, concurrency=str(launches.THREADS))
        )
        parts.environ.update(package_of(tree))
        parts.environ.update({f"AIRFLOW__ECS_QUEUE__{key.upper()}": value for key, value in settings.items()})
        run_command(parts, "queues", "pause", "default")
        submit_lines(parts, json.dumps({"command": launches.COMMAND}), tasks)
        parts.start_worker(exit_stack)
        wait_until(lambda: bool(run_command(parts, "workers", "--json").strip()), 60, interval=0.5)
        return _figures(launches.measure(parts, tasks, _launch_submitted))


def _receive_backlog(tree: Path) -> _Figures:
    """Publish, receive and acknowledge a backlog with the revision in `tree`."""
    with RedisServer() as server:
        environ = {**os.environ, "AIRFLOW__ECS_QUEUE__BROKER_URL": server.url}
        program = [sys.executable, str(HERE / "bench/receive_backlog.py"), "--size", str(_MESSAGES)]
        found = _run_in_tree(tree, program, environ)
    return {"messages/s": found["rate"], "message": 1e6 * found["cpu"]}


def _run_heartbeats(tree: Path) -> _Figures:
    """Submit workloads with the executor of the revision in `tree`; nothing without Airflow."""
    if not Path(_AIRFLOW_PYTHON).exists():
        return {}
    with running_stack(launches.ECS_LATENCY, workers=0) as parts, tempfile.TemporaryDirectory() as home:
        environ = {**parts.environ, **airflow_environment(Path(home), parts.redis.url)}
        program = [_AIRFLOW_PYTHON, "-W", "ignore", str(HERE / "bench/airflow_scheduler.py"), "ours", "heartbeat"]
        options = ["--size", str(_WORKLOADS), "--rounds", str(_HEARTBEATS)]
        found = _run_in_tree(tree, [*program, *options], environ)
    return {"heartbeat": 1e3 * found["wall"], "heartbeat CPU": 1e3 * found["cpu"]}


def _run_in_tree(tree: Path, program: list[str], environ: dict[str, str]) -> dict[str, float]:
    """Run a program of this tree with the package of `tree`; return the JSON of its last line."""
    done = subprocess.run(program, env={**environ, **package_of(tree)}, capture_output=True, check=False, timeout=300)
    if done.returncode:
        raise SystemExit(f"{' '.join(program)} failed with {tree.name}:\n{done.stderr.decode()}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _figures(found: launches.LaunchFigures) -> _Figures:
    return {"launches/s": found.rate, **{kind: 1000 * spent for kind, spent in found.cpu_seconds.items()}}


def _launch_submitted(parts: Stack, tasks: int) -> None:
    run_command(parts, "queues", "resume", "default")
    launches.wait_until_running(tasks)


def _ratios(rounds: list[_Round], kind: str, side: str, own_side: str = _THIS_TREE) -> list[float]:
    """The ratios of this tree, or of it with curl, to the side in the rounds that have the figure of both."""
    pairs = [(found[own_side].get(kind), found[side].get(kind)) for found in rounds]
    return [own / other for own, other in pairs if own is not None and other]


def _format_table(rounds: list[_Round], revision: str) -> str:
    """The table in Markdown. Columns of curl are there where it was measured."""
    titles = {_BOTO3: _BOTO3, revision: revision, _THIS_TREE: "now", _CURL: "now, curl"}
    own_sides = [side for side in (_THIS_TREE, _CURL) if side in rounds[0]]
    sides = [_BOTO3, revision, *own_sides]
    pairs = [(own_side, other) for own_side in own_sides for other in (revision, _BOTO3)]
    ratio_titles = [f"{titles[own_side]} / {other.removesuffix(' alone')}" for own_side, other in pairs]
    heads = ["measurement", *(titles[side] for side in sides), *ratio_titles]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for kind, row in _ROWS.items():
        cells = [_format_figures(rounds, kind, side, row.digits) for side in sides]
        cells += [_format_ratios(rounds, kind, other, own_side) for own_side, other in pairs]
        if kind not in rounds[0][_THIS_TREE]:
            cells[2] = f"not measured: needs {row.needs}"
        lines.append(f"| {' | '.join([row.title, *cells])} |".replace("|  |", "| |").replace("|  |", "| |"))
    return "\n".join(lines)


def _format_figures(rounds: list[_Round], kind: str, side: str, digits: int) -> str:
    values = [found[side][kind] for found in rounds if kind in found[side]]
    if side == _BOTO3 and not _ROWS[kind].has_boto3:
        return ""
    return _format(values, digits)


def _format_ratios(rounds: list[_Round], kind: str, side: str, own_side: str) -> str:
    if side == _BOTO3 and not _ROWS[kind].has_boto3:  # its process has no Redis, but for what starts it
        return ""
    return _format(_ratios(rounds, kind, side, own_side), 2)


def _format(values: list[float], digits: int) -> str:
    """The median and the range, where there are several."""
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return median_and_range(values, digits) if values else ""


if __name__ == "__main__":
    main()
