"""`python -m tests.chaos --tasks 2000 --seed 1`: one run of chaos, and its counts."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.harness import ChaosHarness
from tests.chaos.options import ChaosOptions

_SHOWN = 20


def main(arguments: Sequence[str]) -> int:
    """0: nothing lost, nothing doubled, recovered in time. 1: something was."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.keep and given.keep.exists() and any(given.keep.iterdir()):
        parser.error(f"--keep: expected an empty directory or none, found {given.keep} with something in it")
    with tempfile.TemporaryDirectory(prefix="ecs-queue-chaos-") as temporary:
        options = ChaosOptions(
            directory=given.keep or Path(temporary),
            tasks=given.tasks,
            seed=given.seed,
            workers=given.workers,
            kill_every=given.kill_every,
            speed=given.speed,
        )
        with ChaosHarness(options, lambda line: print(line, file=sys.stderr, flush=True)) as chaos:
            report = chaos.run(given.timeout)
            print(report)
            for failure in report.failures[:_SHOWN]:
                print(f"WRONG: {failure}")
            if len(report.failures) > _SHOWN:
                print(f"and {len(report.failures) - _SHOWN} more")
            if given.keep:
                _keep_servers_running(given.keep)
    return 1 if report.failures else 0


def _keep_servers_running(directory: Path) -> None:
    print(f"The server and the local ECS go on: source {directory / 'environment'}; Enter ends them.", flush=True)
    sys.stdin.readline()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1, help="of ECS's faults, the commands and the victims")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kill-every", type=float, default=1.0, metavar="SECONDS", help="a worker, with SIGKILL")
    parser.add_argument("--speed", type=float, default=1.0, help="how many times AWS's quotas (20 a second, burst 100)")
    parser.add_argument("--timeout", type=float, default=900.0, metavar="SECONDS")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the server's data and the logs there, and the servers up"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
