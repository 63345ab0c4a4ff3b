"""How a worker is doing: its calls to ECS a second, and when it last asked the broker and ECS for something."""

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

#: Rates are over so many seconds.
RATE_WINDOW = 60.0


class Meter:
    """Counts events. Thread-safe. `monotonic`: seconds, a clock that never goes back."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._started_at = monotonic()
        self._lock = threading.Lock()
        self._seconds: deque[tuple[int, int]] = deque()  # whole second -> events in it
        self._last: float | None = None

    def mark(self) -> None:
        """One event, now."""
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
        """Events a second over the last minute, or since the start if that is less."""
        now = self._monotonic()
        with self._lock:
            self._forget(now)
            return sum(number for _, number in self._seconds) / max(1.0, min(RATE_WINDOW, now - self._started_at))

    def age(self) -> float | None:
        """How many seconds ago the last one was; None: there was none."""
        with self._lock:
            return None if self._last is None else self._monotonic() - self._last

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] < now - RATE_WINDOW:
            self._seconds.popleft()


class WorkerMetrics:
    """What a worker tells of itself beside its counters. `starts`: RunTask and StopTask, which share a quota, as
    `reads` do: DescribeTasks and ListTasks."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.launches = Meter(monotonic)
        self.start_calls = Meter(monotonic)
        self.read_calls = Meter(monotonic)
        self.broker_polls = Meter(monotonic)

    def count_broker_polls(self, step: Callable[[], float]) -> Callable[[], float]:
        """The consumer's step, which asks the broker; counted when it has not failed."""

        def polled() -> float:
            rest = step()
            self.broker_polls.mark()
            return rest

        return polled


class MeteredGateway:
    """An `EcsGateway` that counts the calls made through another one."""

    def __init__(self, gateway: EcsGateway, metrics: WorkerMetrics) -> None:
        self._gateway = gateway
        self._metrics = metrics

    def run_task(
        self, target: Target, kwargs: Mapping[str, Any], *, client_token: str, started_by: str, deadline: float
    ) -> RunTaskResult:
        """See `BotoEcsGateway`."""
        answer = self._gateway.run_task(
            target, kwargs, client_token=client_token, started_by=started_by, deadline=deadline
        )
        if answer.was_sent:
            self._metrics.start_calls.mark()
        if answer.kind is RunTaskResultKind.STARTED:
            self._metrics.launches.mark()
        return answer

    def describe_tasks(self, target: Target, arns: Sequence[str]) -> DescribeTasksResult:
        """See `BotoEcsGateway`."""
        self._metrics.read_calls.mark()
        return self._gateway.describe_tasks(target, arns)

    def stop_task(self, target: Target, arn: str, reason: str) -> StopTaskResult:
        """See `BotoEcsGateway`."""
        self._metrics.start_calls.mark()
        return self._gateway.stop_task(target, arn, reason)

    def list_tasks(self, target: Target, started_by: str) -> ListTasksResult:
        """See `BotoEcsGateway`."""
        self._metrics.read_calls.mark()
        return self._gateway.list_tasks(target, started_by)

    def check_cluster(self, target: Target) -> list[str]:
        """See `BotoEcsGateway`."""
        return self._gateway.check_cluster(target)
