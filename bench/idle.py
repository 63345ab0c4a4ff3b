"""The cost of an idle worker."""

from __future__ import annotations

import time

from bench.measurement import Measurement
from bench.stack import running_stack


def run(seconds: int) -> list[Measurement]:
    """See `bench.__main__`."""
    with running_stack(latency=0.0) as parts:
        with parts.client() as client:
            client.submit(["exit", "0"]).result(timeout=60)
        time.sleep(2)
        worker = parts.worker_process()
        before = worker.cpu_times()
        time.sleep(seconds)
        after = worker.cpu_times()
        used = (after.user - before.user) + (after.system - before.system)
        resident = worker.memory_info().rss
    return [
        Measurement("idle worker, share of a core", f"{used / seconds:.2%}", "< 1%"),
        Measurement("idle worker, memory", f"{resident / 2**20:.0f} MB", "< 120 MB"),
    ]
