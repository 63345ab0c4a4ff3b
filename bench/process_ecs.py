"""The local ECS of `bench.warm`, in a separate process: it runs commands, and starts them as slowly as Fargate."""

from __future__ import annotations

import argparse
import os
import sys

from bench.fake_ecs import parse_quota
from ecs_queue.local.ecs import LocalEcsOptions, run_local_ecs
from ecs_queue.runs.runner_options import URL_VARIABLE


def main() -> None:
    """Serve until SIGTERM; the first line on stdout is the endpoint's URL."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--provision-seconds", type=float, required=True)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--launch-quota", type=float, nargs=2, metavar=("RATE", "BURST"))
    given = parser.parse_args()
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    environment = {URL_VARIABLE: given.redis_url, "PATH": path}
    if "PYTHONPATH" in os.environ:  # else the runners may be those of another tree
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    options = LocalEcsOptions(
        provision_seconds=(given.provision_seconds, given.provision_seconds),
        runner_environment=environment,
        run_task_quota=parse_quota(given.launch_quota),
    )
    run_local_ecs(options, lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
