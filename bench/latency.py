"""The latency from submit to RunTask on an idle system."""

from __future__ import annotations

import time
from typing import Any

import boto3

from bench.measurement import Measurement
from bench.stack import Stack, quantile, running_stack, wait_until


def run(tasks: int) -> list[Measurement]:
    """See `bench.__main__`."""
    with running_stack(latency=0.0) as parts:
        delays = _measure_delays(parts, tasks)
    return [
        Measurement("submit to RunTask, p50", f"{quantile(delays, 0.5) * 1000:.1f} ms", "<= 25 ms"),
        Measurement("submit to RunTask, p99", f"{quantile(delays, 0.99) * 1000:.1f} ms", "<= 150 ms"),
    ]


def _measure_delays(parts: Stack, tasks: int) -> list[float]:
    """Delays of single tasks on an idle system: the fake ECS's createdAt minus the time before submit()."""
    ecs = boto3.client("ecs", region_name="us-east-1")
    delays = []
    with parts.client() as client:
        client.submit(["exit", "0"]).result(timeout=60)  # connections
        for _ in range(tasks):
            time.sleep(0.05)
            before = time.time()
            handle = client.submit(["exit", "0"])
            wait_until(lambda: bool(client.status(handle.id).arn), 60, interval=0.005)  # noqa: B023
            arn = client.status(handle.id).arn
            task: Any = ecs.describe_tasks(cluster="local", tasks=[arn])["tasks"][0]
            delays.append(task["createdAt"].timestamp() - before)
    return delays
