"""Memory of the worker and of Redis with 10,000 tasks in flight."""

from __future__ import annotations

import redis

from bench.row import Row
from bench.stack import stack, until
from ecs_queue.core.states import State


def run(tasks: int) -> list[Row]:
    """See `bench.__main__`."""
    with stack(latency=0.0) as parts, parts.client() as client:
        server = redis.Redis.from_url(parts.redis.url)
        empty = int(server.info("memory")["used_memory"])
        for start in range(0, tasks, 1000):
            some = min(1000, tasks - start)
            client.submit_many({"command": ["sleep", "3600"]} for _ in range(some))
        counts = client.ledger.counts
        until(lambda: counts().get("default", {}).get(State.LAUNCHED, 0) >= tasks, 600, every=0.2)
        until(lambda: sum(worker.following for worker in client.ledger.workers()) >= tasks, 120, every=0.5)
        resident = parts.worker().memory_info().rss
        used = int(server.info("memory")["used_memory"])
    return [
        Row(f"worker's memory, {tasks} tasks in flight", f"{resident / 2**20:.0f} MB", "< 200 MB"),
        Row(f"Redis's memory, {tasks} tasks in flight", f"{used / 2**20:.1f} MB", "< 60 MB"),
        Row("Redis's memory a task", f"{(used - empty) / tasks:.0f} bytes", ""),
    ]
