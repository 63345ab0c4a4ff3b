"""The ECS stand-in of the benchmarks, a process of its own: the local ECS with timers in place of containers."""

from __future__ import annotations

import argparse

from ecs_queue.local.ecs import LocalEcsOptions, Quota, TimerRunner, run_local_ecs


def main() -> None:
    """Serve until it is told to stop; the first line on stdout is the endpoint's URL."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--launch-quota", type=float, nargs=2, metavar=("RATE", "BURST"))
    given = parser.parse_args()
    rate, burst = given.launch_quota or (0, 0)
    quota = Quota(rate=rate, burst=burst) if rate else None
    options = LocalEcsOptions(latency_seconds=given.latency, run_task_quota=quota)
    run_local_ecs(options, lambda url: print(url, flush=True), TimerRunner())


if __name__ == "__main__":
    main()
