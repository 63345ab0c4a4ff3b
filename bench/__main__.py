"""`python -m bench [NAME ...]`: run benchmarks and print their figures."""

from __future__ import annotations

import argparse
import os
import platform

from rich.console import Console
from rich.table import Table

from bench import idle, inflight, latency, launches

BENCHES = {
    "idle": (idle.run, 30),
    "latency": (latency.run, 200),
    "launches": (launches.run, 3000),
    "inflight": (inflight.run, 10_000),
}


def main() -> None:
    """Run the chosen benchmarks, all by default."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--size", type=int, help="tasks (seconds for idle) in place of each one's own number")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(BENCHES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    table = Table("what", "figure", "aim", title=f"{os.cpu_count()} cores, Python {platform.python_version()}")
    for name in chosen.names or BENCHES:
        bench, size = BENCHES[name]
        for row in bench(chosen.size or size):
            table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
