"""Throttling and injected faults of a local ECS. Pure: the clock and the seed are parameters."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum

from ecs_queue.local.ecs.options import CALL_FAULTS, LAUNCH_FAULTS, FaultOptions, Quota

RUN_STOP_OPERATIONS = frozenset({"RunTask", "StopTask"})
DESCRIBE_LIST_OPERATIONS = frozenset({"DescribeTasks", "ListTasks"})


class Fault(Enum):
    """The fault of one call."""

    THROTTLE = "throttle"
    SERVER_ERROR = "server_error"
    ACCEPT_THEN_DROP = "accept_then_drop"
    DENIED = "denied"
    CAPACITY = "capacity"
    CAPACITY_ERROR = "capacity_error"
    CAPACITY_STOP = "capacity_stop"
    START_FAILURE = "start_failure"


class AwsTokenBucket:
    """AWS's rate limit: `burst` tokens, `rate` new tokens per second, one token per call."""

    def __init__(self, quota: Quota, clock: Callable[[], float]) -> None:
        self._quota = quota
        self._clock = clock
        self._tokens = quota.burst
        self._refilled_at = clock()

    def take(self) -> bool:
        """Take one token; False when there is none. Never waits."""
        now = self._clock()
        self._tokens = min(self._quota.burst, self._tokens + (now - self._refilled_at) * self._quota.rate)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class ApiThrottle:
    """The token buckets that operations share."""

    def __init__(self, run_task: Quota | None, describe_tasks: Quota | None, clock: Callable[[], float]) -> None:
        self._buckets: dict[str, AwsTokenBucket] = {}
        for quota, operations in ((run_task, RUN_STOP_OPERATIONS), (describe_tasks, DESCRIBE_LIST_OPERATIONS)):
            if quota is not None:
                self._buckets.update(dict.fromkeys(operations, AwsTokenBucket(quota, clock)))

    def allows(self, operation: str) -> bool:
        """Return whether the call is within its quota, or has none."""
        bucket = self._buckets.get(operation)
        return bucket is None or bucket.take()


class FaultInjector:
    """Chooses the faults of calls; at most one fault per call."""

    def __init__(self, faults: FaultOptions, clock: Callable[[], float]) -> None:
        """Inject `faults` from now on; `clock` returns seconds."""
        self.options = faults
        self._clock = clock
        self._until = None if faults.seconds is None else clock() + faults.seconds
        self._random = random.Random(faults.seed)
        tables = {operation: _probabilities(faults, CALL_FAULTS) for operation in faults.operations}
        tables.setdefault("RunTask", []).extend(_probabilities(faults, LAUNCH_FAULTS))
        self._probabilities = tables

    def next_fault(self, operation: str) -> Fault | None:
        """Return the fault of this call, or None."""
        if self._until is not None and self._clock() >= self._until:
            return None
        for fault, chance in self._probabilities.get(operation, ()):
            if self._random.random() < chance:
                return fault
        return None


def _probabilities(faults: FaultOptions, names: tuple[str, ...]) -> list[tuple[Fault, float]]:
    return [(Fault(name), getattr(faults, name)) for name in names if getattr(faults, name) > 0]
