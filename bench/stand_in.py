"""The ECS stand-in of the benchmarks, a process of its own: the local ECS with timers in place of containers."""

from __future__ import annotations

import argparse

from ecs_queue.local.ecs import LocalEcsOptions, TimerRunner, run_local_ecs


def main() -> None:
    """Serve until it is told to stop; the first line on stdout is the endpoint's URL."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    options = LocalEcsOptions(latency_seconds=parser.parse_args().latency)
    run_local_ecs(options, lambda url: print(url, flush=True), TimerRunner())


if __name__ == "__main__":
    main()
