"""The cost of 10,000 tasks in flight: memory of the worker and of Redis, and CPU time while nothing happens."""

from __future__ import annotations

import time

import redis

from bench.measurement import Measurement
from bench.stack import CpuLoad, Stack, tracking_stack, wait_until
from ecs_queue.client.client import EcsQueue
from ecs_queue.protocol.states import State

#: Polls of 10,000 tasks are limited by the quota from the start, so a short warm-up is enough. Seconds.
_WARM_UP_SECONDS, _SAMPLE_SECONDS = 20.0, 30.0


def run(tasks: int) -> list[Measurement]:
    """Measure with AWS's quota of DescribeTasks: first by polls, then by events."""
    with tracking_stack(by_events=False) as parts, parts.client() as client:
        server = redis.Redis.from_url(parts.redis.url)
        empty = int(server.info("memory")["used_memory"])
        _launch(client, tasks)
        wait_until(lambda: any(worker.read_call_rate for worker in client.ledger.list_workers()), 120, interval=0.5)
        resident = parts.worker_process().memory_info().rss
        used = int(server.info("memory")["used_memory"])
        by_polls = _measure_load(parts)
    with tracking_stack(by_events=True) as parts, parts.client() as client:
        _launch(client, tasks)
        by_events = _measure_load(parts)
    return [
        Measurement(f"worker's memory, {tasks} tasks in flight", f"{resident / 2**20:.0f} MB", "< 200 MB"),
        Measurement(f"Redis's memory, {tasks} tasks in flight", f"{used / 2**20:.1f} MB", "< 60 MB"),
        Measurement("Redis memory per task", f"{(used - empty) / tasks:.0f} bytes"),
        Measurement(
            "CPU share while nothing ends, by polls: worker, Redis", f"{by_polls.worker:.1%}, {by_polls.redis:.1%}"
        ),
        Measurement("  by events: worker, Redis", f"{by_events.worker:.1%}, {by_events.redis:.1%}"),
    ]


def _launch(client: EcsQueue, tasks: int) -> None:
    for start in range(0, tasks, 1000):
        client.submit_many({"command": ["sleep", "3600"]} for _ in range(min(1000, tasks - start)))
    counts = client.ledger.count_by_state
    wait_until(lambda: counts().get("default", {}).get(State.LAUNCHED, 0) >= tasks, 600, interval=0.2)


def _measure_load(parts: Stack) -> CpuLoad:
    time.sleep(_WARM_UP_SECONDS)
    meter = parts.meter()
    time.sleep(_SAMPLE_SECONDS)
    return meter.load()
