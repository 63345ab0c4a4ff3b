"""The fake ECS of the benchmarks, in a separate process: the local ECS with timers instead of containers."""

from __future__ import annotations

import argparse
import time

from ecs_queue.local.ecs import ContainerSpec, LocalEcsOptions, Quota, TimerRunner, run_local_ecs


class UntilTimerRunner(TimerRunner):
    """A `TimerRunner` that also knows `["until", "1800000000.5"]`: run until that time (epoch seconds) and exit 0."""

    def _duration_and_exit_code(self, spec: ContainerSpec) -> tuple[float, int]:
        match spec.command:
            case ("until", moment):
                return max(0.0, float(moment) - time.time()), 0
        return super()._duration_and_exit_code(spec)


def main() -> None:
    """Serve until SIGTERM; the first line on stdout is the endpoint's URL."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--launch-quota", type=float, nargs=2, metavar=("RATE", "BURST"))
    parser.add_argument("--describe-quota", type=float, nargs=2, metavar=("RATE", "BURST"))
    parser.add_argument("--event-queue-url", metavar="QUEUE_URL")
    given = parser.parse_args()
    options = LocalEcsOptions(
        latency_seconds=given.latency,
        run_task_quota=parse_quota(given.launch_quota),
        describe_tasks_quota=parse_quota(given.describe_quota),
        event_queue_url=given.event_queue_url,
    )
    run_local_ecs(options, lambda url: print(url, flush=True), UntilTimerRunner())


def parse_quota(given: list[float] | None) -> Quota | None:
    """Return the quota of a rate and a burst; None for none."""
    return Quota(rate=given[0], burst=given[1]) if given else None


if __name__ == "__main__":
    main()
