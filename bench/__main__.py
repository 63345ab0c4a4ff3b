"""`python -m bench [NAME ...]`: run benchmarks, print the measurements, compare their ratios with a baseline."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import airflow, baseline, revision
from bench.measurement import Measurement

#: Modules with run(size) -> measurements, and their default size: tasks or records, or seconds for idle.
BENCHMARKS = {
    "idle": 30,
    "latency": 200,
    "launches": 3000,
    "revision": 3000,
    "in_flight": 10_000,
    "quota": 500,
    "backlog": 100_000,
    "airflow": 1000,
    "messages": 10_000,
    "journal": 1500,
    "metrics": 1500,
    "result_latency": 200,
    "result_load": 10_000,
    "warm": 300,
    "testing": 100,
    "policies": 1000,
    "web": 100_000,
    "warm_rate": 2000,
    "airflow_dag": 40,
    "airflow_start": 5,
}


def main() -> None:
    """Run the chosen benchmarks, all by default. Exit status 1 when a ratio fell by more than a quarter."""
    arguments = _arguments()
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    found: dict[str, list[Measurement]] = {}
    for name in arguments.names or _default_names():
        print(f"{name} ...", file=sys.stderr, flush=True)
        benchmark = importlib.import_module(f"bench.{name}")
        found[name] = [Measurement(*row) for row in benchmark.run(arguments.size or BENCHMARKS[name])]
    _print_table(machine, found)
    base = baseline.read(arguments.check) if arguments.check else {}  # before --json may replace it
    if arguments.json:
        baseline.update(arguments.json, machine, found)
    if arguments.check:
        regressions = baseline.regressions(base, found)
        for sentence in regressions:
            print(sentence, file=sys.stderr)
        sys.exit(bool(regressions))


def _default_names() -> list[str]:
    names = list(BENCHMARKS)
    if not airflow.is_installed():
        print(
            "airflow, airflow_dag and airflow_start are left out: make bench installs Airflow and what they compare",
            file=sys.stderr,
        )
        names = [name for name in names if not name.startswith("airflow")]
    if not revision.is_possible():
        print(f"revision is left out: this is no clone with the commit {revision.BASE_REVISION}", file=sys.stderr)
        names.remove("revision")
    return names


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--size", type=int, help="tasks (seconds for idle) instead of the default")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the measurements to this file")
    parser.add_argument("--check", type=Path, metavar="PATH", help="fail when a ratio there fell by more than 25%%")
    chosen = parser.parse_args()
    chosen.names = [name.replace("-", "_") for name in chosen.names]
    unknown = set(chosen.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return chosen


def _print_table(machine: str, found: dict[str, list[Measurement]]) -> None:
    table = Table("measurement", "value", "target", "ratio", title=machine)
    for rows in found.values():
        for row in rows:
            table.add_row(row.name, row.value, row.target, "" if row.ratio is None else f"{row.ratio:.2f}")
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
