"""A worker's metrics: its calls to ECS a second, and when it last polled the broker and ECS."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.protocol.ecs_results import (
    DescribeTasksResult,
    ListTasksResult,
    RunTaskResult,
    RunTaskResultKind,
    StopTaskResult,
)

#: Rates are averages over this time. Seconds.
RATE_WINDOW = 60.0


class Meter:
    """Counts events. Thread-safe. `monotonic` is a clock that never goes back, in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._started_at = monotonic()
        self._lock = threading.Lock()
        self._seconds: deque[tuple[int, int]] = deque()  # whole second -> events in it
        self._last: float | None = None

    def mark(self) -> None:
        """Count one event now."""
        now = self._monotonic()
        with self._lock:
            self._last = now
            second, number = self._seconds[-1] if self._seconds else (-1, 0)
            if second == int(now):
                self._seconds[-1] = (second, number + 1)
            else:
                self._seconds.append((int(now), 1))
                self._forget(now)

    def rate(self) -> float:
        """Return the events a second over the last minute, or since the start if that is less."""
        now = self._monotonic()
        with self._lock:
            self._forget(now)
            return sum(number for _, number in self._seconds) / max(1.0, min(RATE_WINDOW, now - self._started_at))

    def age(self) -> float | None:
        """Return the seconds since the last event; None when there was none."""
        with self._lock:
            return None if self._last is None else self._monotonic() - self._last

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] < now - RATE_WINDOW:
            self._seconds.popleft()


class WorkerMetrics:
    """`start_calls` are RunTask and StopTask, `read_calls` DescribeTasks and ListTasks: each pair shares a limit."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.launches = Meter(monotonic)
        self.start_calls = Meter(monotonic)
        self.read_calls = Meter(monotonic)
        self.broker_polls = Meter(monotonic)

    def count_broker_polls(self, step: Callable[[], float]) -> Callable[[], float]:
        """Return the consumer's step, which polls the broker, counted when it does not raise."""

        def counted() -> float:
            delay = step()
            self.broker_polls.mark()
            return delay

        return counted


class MeteredGateway:
    """An `EcsGateway` that counts the calls made through another one."""

    def __init__(self, gateway: EcsGateway, metrics: WorkerMetrics) -> None:
        self._gateway = gateway
        self._metrics = metrics

    def run_task(
        self, target: Target, kwargs: Mapping[str, Any], *, client_token: str, started_by: str, deadline: float
    ) -> RunTaskResult:
        """See `BotoEcsGateway`."""
        result = self._gateway.run_task(
            target, kwargs, client_token=client_token, started_by=started_by, deadline=deadline
        )
        if result.was_sent:
            self._metrics.start_calls.mark()
        if result.kind is RunTaskResultKind.STARTED:
            self._metrics.launches.mark()
        return result

    def describe_tasks(self, target: Target, arns: Sequence[str]) -> DescribeTasksResult:
        """See `BotoEcsGateway`."""
        self._metrics.read_calls.mark()
        return self._gateway.describe_tasks(target, arns)

    def stop_task(self, target: Target, arn: str, reason: str) -> StopTaskResult:
        """See `BotoEcsGateway`."""
        self._metrics.start_calls.mark()
        return self._gateway.stop_task(target, arn, reason)

    def list_tasks(self, target: Target, started_by: str, family: str) -> ListTasksResult:
        """See `BotoEcsGateway`."""
        self._metrics.read_calls.mark()
        return self._gateway.list_tasks(target, started_by, family)

    def check_cluster(self, target: Target) -> list[str]:
        """See `BotoEcsGateway`."""
        return self._gateway.check_cluster(target)
