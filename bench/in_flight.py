"""What 10,000 tasks in flight take: memory of the worker and of Redis, and processor time while nothing happens."""

from __future__ import annotations

import time

import redis

from bench.measurement import Measurement
from bench.stack import CpuLoad, Stack, tracking_stack, wait_until
from ecs_queue.client.client import EcsQueue
from ecs_queue.protocol.states import State

#: A task is young for ten minutes at most; looks at 10,000 are as rare as the quota wants from the start. Seconds.
_WARM_UP_SECONDS, _SAMPLE_SECONDS = 20.0, 30.0


def run(tasks: int) -> list[Measurement]:
    """See `bench.__main__`. At AWS's quota of DescribeTasks, by polls; then by events."""
    with tracking_stack(by_events=False) as parts, parts.client() as client:
        server = redis.Redis.from_url(parts.redis.url)
        empty = int(server.info("memory")["used_memory"])
        _launch(client, tasks)
        wait_until(lambda: any(worker.read_call_rate for worker in client.ledger.list_workers()), 120, interval=0.5)
        resident = parts.worker_process().memory_info().rss
        used = int(server.info("memory")["used_memory"])
        polled = _measure_load(parts)
    with tracking_stack(by_events=True) as parts, parts.client() as client:
        _launch(client, tasks)
        told = _measure_load(parts)
    return [
        Measurement(f"worker's memory, {tasks} tasks in flight", f"{resident / 2**20:.0f} MB", "< 200 MB"),
        Measurement(f"Redis's memory, {tasks} tasks in flight", f"{used / 2**20:.1f} MB", "< 60 MB"),
        Measurement("Redis's memory a task", f"{(used - empty) / tasks:.0f} bytes"),
        Measurement("of a core, nothing ends; by polls: worker, Redis", f"{polled.worker:.1%}, {polled.redis:.1%}"),
        Measurement("  by events: worker, Redis", f"{told.worker:.1%}, {told.redis:.1%}"),
    ]


def _launch(client: EcsQueue, tasks: int) -> None:
    for start in range(0, tasks, 1000):
        some = min(1000, tasks - start)
        client.submit_many({"command": ["sleep", "3600"]} for _ in range(some))
    counts = client.ledger.count_by_state
    wait_until(lambda: counts().get("default", {}).get(State.LAUNCHED, 0) >= tasks, 600, interval=0.2)


def _measure_load(parts: Stack) -> CpuLoad:
    time.sleep(_WARM_UP_SECONDS)
    meter = parts.meter()
    time.sleep(_SAMPLE_SECONDS)
    return meter.load()
