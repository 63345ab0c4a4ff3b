"""A backlog: how fast it is submitted, what it costs a worker, and how soon an urgent request gets past it."""

from __future__ import annotations

import time

from bench.row import Row
from bench.stack import Stack, quantile, stack, until

RATE, BURST = 20, 100
URGENT = 10
_AT_ONCE = 1000


def run(tasks: int) -> list[Row]:
    """AWS's quota, one worker; the urgent ones are submitted one after the other behind all else."""
    with stack(workers=1, run_task_rate=str(RATE), run_task_burst=str(BURST)) as parts:
        resident = [parts.worker().memory_info().rss]
        with parts.client() as client:
            start = time.monotonic()
            for first in range(0, tasks, _AT_ONCE):
                client.submit_many({"command": ["sleep", "3600"]} for _ in range(min(_AT_ONCE, tasks - first)))
            rate = tasks / (time.monotonic() - start)
            waits = [_urgent(parts) for _ in range(URGENT)]
        resident.append(parts.worker().memory_info().rss)
    before, after = (size / 2**20 for size in resident)
    return [
        Row(f"submit of {tasks} requests, one process", f"{rate:.0f}/s", ">= 3000/s"),
        Row("  an urgent one behind them, submit to launch, p50", f"{quantile(waits, 0.5) * 1000:.0f} ms"),
        Row("  the slowest", f"{max(waits) * 1000:.0f} ms", "<= 1000 ms"),
        Row("  worker's memory before and with the backlog", f"{before:.0f} MB, {after:.0f} MB", "the same"),
    ]


def _urgent(parts: Stack) -> float:
    with parts.client() as client:
        start = time.monotonic()
        handle = client.submit(["sleep", "3600"], priority=9)
        until(lambda: bool(client.status(handle.id).arn), 60, every=0.005)
        return time.monotonic() - start
