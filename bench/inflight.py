"""What 10,000 tasks in flight take: memory of the worker and of Redis, and processor time while nothing happens."""

from __future__ import annotations

import time

import redis

from bench.row import Row
from bench.stack import Load, Stack, following, until
from ecs_queue.client import EcsQueue
from ecs_queue.core.states import State

#: A task is young for ten minutes at most; looks at 10,000 are as rare as the quota wants from the start. Seconds.
_SETTLE, _SAMPLE = 20.0, 30.0


def run(tasks: int) -> list[Row]:
    """See `bench.__main__`. At AWS's quota of DescribeTasks, by polls; then by events."""
    with following(by_events=False) as parts, parts.client() as client:
        server = redis.Redis.from_url(parts.redis.url)
        empty = int(server.info("memory")["used_memory"])
        _launch(client, tasks)
        until(lambda: sum(worker.following for worker in client.ledger.workers()) >= tasks, 120, every=0.5)
        resident = parts.worker().memory_info().rss
        used = int(server.info("memory")["used_memory"])
        polled = _load(parts)
    with following(by_events=True) as parts, parts.client() as client:
        _launch(client, tasks)
        told = _load(parts)
    return [
        Row(f"worker's memory, {tasks} tasks in flight", f"{resident / 2**20:.0f} MB", "< 200 MB"),
        Row(f"Redis's memory, {tasks} tasks in flight", f"{used / 2**20:.1f} MB", "< 60 MB"),
        Row("Redis's memory a task", f"{(used - empty) / tasks:.0f} bytes"),
        Row("of a core, nothing ends; by polls: worker, Redis", f"{polled.worker:.1%}, {polled.redis:.1%}"),
        Row("  by events: worker, Redis", f"{told.worker:.1%}, {told.redis:.1%}"),
    ]


def _launch(client: EcsQueue, tasks: int) -> None:
    for start in range(0, tasks, 1000):
        some = min(1000, tasks - start)
        client.submit_many({"command": ["sleep", "3600"]} for _ in range(some))
    counts = client.ledger.counts
    until(lambda: counts().get("default", {}).get(State.LAUNCHED, 0) >= tasks, 600, every=0.2)


def _load(parts: Stack) -> Load:
    time.sleep(_SETTLE)
    meter = parts.meter()
    time.sleep(_SAMPLE)
    return meter.load()
