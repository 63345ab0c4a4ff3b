"""How much of AWS's request rates the workers use together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ecs_queue.ledger.base import WorkerInfo


class QuotaUse(NamedTuple):
    """The calls of one limit: their names, calls a second over the last minute, and the limit; 0: no limit."""

    calls: str
    rate: float
    limit: float


def measure_quota_use(workers: Sequence[WorkerInfo]) -> list[QuotaUse]:
    """Return the use of each limit by these workers; that of Fargate Spot only where a worker launches there.

    Workers that launch in several accounts or Regions have a limit for each of them: then the sum may be above it.
    """
    spot = [worker.spot_call_rate for worker in workers if worker.spot_call_rate is not None]
    start_limit = max((worker.start_call_limit for worker in workers), default=0.0)
    read_limit = max((worker.read_call_limit for worker in workers), default=0.0)
    starts, reads = sum(worker.start_call_rate for worker in workers), sum(worker.read_call_rate for worker in workers)
    return [
        QuotaUse("RunTask and StopTask", starts, start_limit),
        *([QuotaUse("RunTask on Fargate Spot", sum(spot), start_limit)] if spot else []),
        QuotaUse("DescribeTasks and ListTasks", reads, read_limit),
    ]
