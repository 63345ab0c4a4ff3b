"""`python -m bench [NAME ...]`: run benchmarks, print their figures, compare their ratios with a baseline."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import airflow, baseline
from bench.row import Row

#: Each a module with run(size) -> rows, and its usual size: tasks, or seconds for idle.
BENCHES = {
    "idle": 30,
    "latency": 200,
    "launches": 3000,
    "inflight": 10_000,
    "quota": 500,
    "backlog": 100_000,
    "airflow": 1000,
    "journal": 1500,
    "ends": 200,
    "results": 10_000,
}


def main() -> None:
    """Run the chosen benchmarks, all by default. Exit status 1 when a ratio fell by more than a quarter."""
    arguments = _arguments()
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    found: dict[str, list[Row]] = {}
    for name in arguments.names or _all():
        print(f"{name} ...", file=sys.stderr, flush=True)
        bench = importlib.import_module(f"bench.{name}")
        found[name] = [Row(*row) for row in bench.run(arguments.size or BENCHES[name])]
    _show(machine, found)
    base = baseline.read(arguments.check) if arguments.check else {}  # before --json may replace it
    if arguments.json:
        baseline.merge(arguments.json, machine, found)
    if arguments.check:
        said = baseline.fallen(base, found)
        for sentence in said:
            print(sentence, file=sys.stderr)
        sys.exit(bool(said))


def _all() -> list[str]:
    if airflow.is_ready():
        return list(BENCHES)
    print("airflow is left out: make bench installs the executors that it compares", file=sys.stderr)
    return [name for name in BENCHES if name != "airflow"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--size", type=int, help="tasks (seconds for idle) in place of each one's own number")
    parser.add_argument("--json", type=Path, metavar="PATH", help="put the figures into this file")
    parser.add_argument("--check", type=Path, metavar="PATH", help="fail when a ratio there fell by more than 25%%")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(BENCHES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return chosen


def _show(machine: str, found: dict[str, list[Row]]) -> None:
    table = Table("what", "figure", "aim", "ratio", title=machine)
    for rows in found.values():
        for row in rows:
            table.add_row(row.what, row.figure, row.aim, "" if row.ratio is None else f"{row.ratio:.2f}")
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
