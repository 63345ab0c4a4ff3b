"""`python -m tests.chaos --tasks 2000 --seed 1` makes one chaos run and prints its counts; with `--warm` of runners."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.harness import ChaosHarness
from tests.chaos.options import ChaosOptions
from tests.chaos.warm import WarmChaos, WarmChaosOptions

#: The most failures that are printed.
_SHOWN = 20


def main(argv: Sequence[str]) -> int:
    """Return 0 if nothing was lost or doubled and all was recovered in time, else 1."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.keep and arguments.keep.exists() and any(arguments.keep.iterdir()):
        parser.error(f"--keep: expected an empty directory or none, found {arguments.keep} with files in it")
    with tempfile.TemporaryDirectory(prefix="ecs-queue-chaos-") as temporary:
        if arguments.warm:
            return _run_warm(arguments, arguments.keep or Path(temporary))
        options = ChaosOptions(
            directory=arguments.keep or Path(temporary),
            tasks=arguments.tasks,
            seed=arguments.seed,
            workers=arguments.workers,
            kill_every=arguments.kill_every,
            speed=arguments.speed,
            cluster=arguments.cluster,
        )
        with ChaosHarness(options, lambda line: print(line, file=sys.stderr, flush=True)) as chaos:
            report = chaos.run(arguments.timeout)
            print(report)
            for failure in report.failures[:_SHOWN]:
                print(f"FAILURE: {failure}")
            if len(report.failures) > _SHOWN:
                print(f"and {len(report.failures) - _SHOWN} more")
            if arguments.keep:
                _keep_servers_running(arguments.keep)
    return 1 if report.failures else 0


def _run_warm(arguments: argparse.Namespace, directory: Path) -> int:
    options = WarmChaosOptions(
        directory=directory,
        tasks=arguments.tasks,
        seed=arguments.seed,
        provision_seconds=tuple(arguments.provision_seconds),
        durability=arguments.durability,
    )
    with WarmChaos(options, lambda line: print(line, file=sys.stderr, flush=True)) as chaos:
        report = chaos.run(arguments.timeout)
    print(report)
    for failure in report.failures[:_SHOWN]:
        print(f"FAILURE: {failure}")
    return 1 if report.failures else 0


def _keep_servers_running(directory: Path) -> None:
    print(
        f"The server and the local ECS keep running: source {directory / 'environment'}; press Enter to stop them.",
        flush=True,
    )
    sys.stdin.readline()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1, help="of the faults, the commands and the killed workers")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument(
        "--kill-every", type=float, default=1.0, metavar="SECONDS", help="time between two SIGKILLs to a worker"
    )
    parser.add_argument("--speed", type=float, default=1.0, help="multiplies AWS's quotas (20 a second, burst 100)")
    parser.add_argument(
        "--cluster", action="store_true", help="on a Valkey cluster with durability = replica; its nodes fail over"
    )
    parser.add_argument(
        "--warm", action="store_true", help="a warm queue, whose runners are killed; commands count their own starts"
    )
    parser.add_argument(
        "--provision-seconds",
        type=float,
        nargs=2,
        default=(3.0, 8.0),
        metavar=("MIN", "MAX"),
        help="until a container starts; with --warm",
    )
    parser.add_argument(
        "--durability",
        choices=("server", "aof", "replica"),
        default="server",
        help="with --warm; replica is on a cluster that fails over",
    )
    parser.add_argument("--timeout", type=float, default=900.0, metavar="SECONDS")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the server's data and the logs there, and the servers running"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
