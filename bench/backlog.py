"""A backlog: its rate of submission, its cost for a worker, and the delay of an urgent request behind it."""

from __future__ import annotations

import time

from bench.measurement import Measurement
from bench.stack import Stack, quantile, running_stack, wait_until

RATE, BURST = 20, 100
URGENT_REQUESTS = 10
_SUBMIT_BATCH = 1000


def run(tasks: int) -> list[Measurement]:
    """Measure with AWS's quota and one worker; urgent requests are submitted one by one behind the backlog."""
    with running_stack(workers=1, run_task_rate=str(RATE), run_task_burst=str(BURST)) as parts:
        resident = [parts.worker_process().memory_info().rss]
        with parts.client() as client:
            start = time.monotonic()
            for first in range(0, tasks, _SUBMIT_BATCH):
                client.submit_many({"command": ["sleep", "3600"]} for _ in range(min(_SUBMIT_BATCH, tasks - first)))
            rate = tasks / (time.monotonic() - start)
            waits = [_urgent_delay(parts) for _ in range(URGENT_REQUESTS)]
        resident.append(parts.worker_process().memory_info().rss)
    before, after = (size / 2**20 for size in resident)
    return [
        Measurement(f"submit of {tasks} requests, one process", f"{rate:.0f}/s", ">= 3000/s"),
        Measurement("  an urgent request behind them, submit to launch, p50", f"{quantile(waits, 0.5) * 1000:.0f} ms"),
        Measurement("  the slowest", f"{max(waits) * 1000:.0f} ms", "<= 1000 ms"),
        Measurement("  worker's memory before and with the backlog", f"{before:.0f} MB, {after:.0f} MB", "the same"),
    ]


def _urgent_delay(parts: Stack) -> float:
    with parts.client() as client:
        start = time.monotonic()
        handle = client.submit(["sleep", "3600"], priority=9)
        wait_until(lambda: bool(client.status(handle.id).arn), 60, interval=0.005)
        return time.monotonic() - start
