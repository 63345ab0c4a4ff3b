"""Quotas and faults of a local ECS. Pure: the clock and the seed are handed in."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum

from ecs_queue.local.ecs.options import FaultOptions, Quota

RUN_STOP_OPERATIONS = frozenset({"RunTask", "StopTask"})
DESCRIBE_LIST_OPERATIONS = frozenset({"DescribeTasks", "ListTasks"})


class Fault(Enum):
    """What goes wrong with one call."""

    THROTTLE = "throttle"
    SERVER_ERROR = "server_error"
    ACCEPT_THEN_DROP = "accept_then_drop"
    CAPACITY = "capacity"
    START_FAILURE = "start_failure"


class AwsTokenBucket:
    """AWS's way to limit a rate: ``burst`` tokens, ``rate`` new ones a second, a call takes one."""

    def __init__(self, quota: Quota, clock: Callable[[], float]) -> None:
        self._quota = quota
        self._clock = clock
        self._tokens = quota.burst
        self._refilled_at = clock()

    def take(self) -> bool:
        """Take one token if there is one; never waits."""
        now = self._clock()
        self._tokens = min(self._quota.burst, self._tokens + (now - self._refilled_at) * self._quota.rate)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class ApiThrottle:
    """The buckets that operations share."""

    def __init__(self, launch: Quota | None, describe: Quota | None, clock: Callable[[], float]) -> None:
        self._buckets: dict[str, AwsTokenBucket] = {}
        for quota, operations in ((launch, RUN_STOP_OPERATIONS), (describe, DESCRIBE_LIST_OPERATIONS)):
            if quota is not None:
                self._buckets.update(dict.fromkeys(operations, AwsTokenBucket(quota, clock)))

    def allows(self, operation: str) -> bool:
        """True when the call is within its quota, or has none."""
        bucket = self._buckets.get(operation)
        return bucket is None or bucket.take()


class FaultInjector:
    """Decides for each call whether it goes wrong and how; at most one fault a call."""

    def __init__(self, faults: FaultOptions) -> None:
        self._random = random.Random(faults.seed)
        common = [
            (Fault.THROTTLE, faults.throttle),
            (Fault.SERVER_ERROR, faults.server_error),
            (Fault.ACCEPT_THEN_DROP, faults.accept_then_drop),
        ]
        launch = [(Fault.CAPACITY, faults.capacity), (Fault.START_FAILURE, faults.start_failure)]
        tables = {operation: list(common) for operation in faults.operations}
        tables.setdefault("RunTask", []).extend(launch)
        self._probabilities = {
            operation: [(fault, chance) for fault, chance in table if chance > 0] for operation, table in tables.items()
        }

    def next_fault(self, operation: str) -> Fault | None:
        """The fault of this call, or None."""
        for fault, chance in self._probabilities.get(operation, ()):
            if self._random.random() < chance:
                return fault
        return None
