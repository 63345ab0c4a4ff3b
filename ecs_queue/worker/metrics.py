"""A worker's metrics: its calls to ECS a second, and when it last polled the broker and ECS."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ecs_queue.ecs.clients import Target
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.errors import BrokerUnavailable
from ecs_queue.findings import Finding, Reporter
from ecs_queue.monitoring.catalogue import MAX_QUEUES, OTHER
from ecs_queue.monitoring.counters import WorkerCounters
from ecs_queue.protocol.ecs_results import (
    DescribeTasksResult,
    EcsError,
    ListTasksResult,
    RunTaskResult,
    RunTaskResultKind,
    StopTaskResult,
)
from ecs_queue.runtask.capacity import LaunchQuota, launch_quota
from ecs_queue.worker.result_publisher import ResultBroker

#: Rates are averages over this time. Seconds.
RATE_WINDOW = 60.0


class Meter:
    """Counts events. Thread-safe. `monotonic` is a clock that never goes back, in seconds."""

    def __init__(self, monotonic: Callable[[], float], since: float | None = None) -> None:
        """Count from `since` on, by this clock; by default from now on."""
        self._monotonic = monotonic
        self._started_at = monotonic() if since is None else since
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


class QueueRates:
    """Launches and ends a second of each queue over the last minute. Thread-safe.

    `record_event` is the telemetry sink. The ends are those that this worker finds, also of queues that it does not
    serve: it polls the tasks of all.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._started_at = monotonic()
        self._lock = threading.Lock()
        self._launches: dict[str, Meter] = {}
        self._ends: dict[str, Meter] = {}
        launches = dict.fromkeys(("launch.started", "launch.assigned"), self._launches)
        self._meters = {**launches, "request.ended": self._ends}

    def record_event(self, name: str, fields: dict[str, Any]) -> None:
        """Count a launch or an end; what is beyond `MAX_QUEUES` queues counts together."""
        meters = self._meters.get(name)
        if meters is None:
            return
        with self._lock:
            queue = fields["queue"] if fields["queue"] in meters or len(meters) < MAX_QUEUES else OTHER
            meters.setdefault(queue, Meter(self._monotonic, self._started_at)).mark()

    def read_launches(self) -> dict[str, float]:
        """Return the launches a second of each queue that had some in the last minute."""
        return self._read(self._launches)

    def read_ends(self) -> dict[str, float]:
        """Return the ends a second of each queue that had some in the last minute."""
        return self._read(self._ends)

    def _read(self, meters: dict[str, Meter]) -> dict[str, float]:
        with self._lock:
            rates = {queue: round(meter.rate(), 3) for queue, meter in meters.items()}
            for queue in [queue for queue, rate in rates.items() if not rate]:
                del meters[queue], rates[queue]
        return rates


class WorkerMetrics:
    """The calls of each limit: `start_calls` are RunTask and StopTask, `spot_calls` RunTask on Fargate Spot.

    `read_calls` are DescribeTasks and ListTasks.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.launches = Meter(monotonic)
        self.start_calls = Meter(monotonic)
        self.spot_calls = Meter(monotonic)
        self.read_calls = Meter(monotonic)
        self.broker_polls = Meter(monotonic)
        self.heartbeats = Meter(monotonic)
        self.counters = WorkerCounters()
        self._monotonic = monotonic

    @contextmanager
    def measure_call(self, operation: str) -> Iterator[Callable[[str], None]]:
        """Measure a call to ECS. The caller reports its result: a value of `RunTaskResultKind` or `EcsErrorKind`."""
        began = self._monotonic()
        yield lambda result: self.counters.observe(
            "ecs_queue_ecs_call_seconds", self._monotonic() - began, (operation, result)
        )

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
        self._strategies: dict[Target, Sequence[Mapping[str, Any]]] = {}

    def run_task(
        self, target: Target, kwargs: Mapping[str, Any], *, client_token: str, started_by: str, deadline: float
    ) -> RunTaskResult:
        """See `BotoEcsGateway`."""
        with self._metrics.measure_call("RunTask") as report:
            result = self._gateway.run_task(
                target, kwargs, client_token=client_token, started_by=started_by, deadline=deadline
            )
            report("ok" if result.kind is RunTaskResultKind.STARTED else result.kind.value)
        if result.was_sent:
            is_default = not (kwargs.get("launchType") or kwargs.get("capacityProviderStrategy"))
            capacity = {"capacityProviderStrategy": self._strategies.get(target, ())} if is_default else kwargs
            is_spot = launch_quota(capacity) is LaunchQuota.FARGATE_SPOT
            (self._metrics.spot_calls if is_spot else self._metrics.start_calls).mark()
        if result.kind is RunTaskResultKind.STARTED:
            self._metrics.launches.mark()
        return result

    def describe_tasks(self, target: Target, arns: Sequence[str]) -> DescribeTasksResult:
        """See `BotoEcsGateway`."""
        self._metrics.read_calls.mark()
        with self._metrics.measure_call("DescribeTasks") as report:
            result = self._gateway.describe_tasks(target, arns)
            report(_result_label(result.error))
        return result

    def stop_task(self, target: Target, arn: str, reason: str) -> StopTaskResult:
        """See `BotoEcsGateway`."""
        self._metrics.start_calls.mark()
        with self._metrics.measure_call("StopTask") as report:
            result = self._gateway.stop_task(target, arn, reason)
            report(_result_label(result.error))
        return result

    def list_tasks(self, target: Target, started_by: str, family: str) -> ListTasksResult:
        """See `BotoEcsGateway`."""
        self._metrics.read_calls.mark()
        with self._metrics.measure_call("ListTasks") as report:
            result = self._gateway.list_tasks(target, started_by, family)
            report(_result_label(result.error))
        return result

    def check_cluster(self, target: Target, reporter: Reporter) -> Finding:
        """See `BotoEcsGateway`."""
        return self._gateway.check_cluster(target, reporter)

    def default_strategy(self, target: Target) -> tuple[dict[str, Any], ...] | EcsError:
        """See `BotoEcsGateway`."""
        found = self._gateway.default_strategy(target)
        if not isinstance(found, EcsError):
            self._strategies[target] = found
        return found


def _result_label(error: EcsError | None) -> str:
    return "ok" if error is None else error.kind.value


class MeteredResultBroker:
    """Publishes results, and measures how long that takes."""

    def __init__(self, broker: ResultBroker, counters: WorkerCounters, monotonic: Callable[[], float]) -> None:
        self._broker = broker
        self._counters = counters
        self._monotonic = monotonic

    def publish_results(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Broker.publish_results`."""
        began = self._monotonic()
        try:
            self._broker.publish_results(messages)
        except BrokerUnavailable:
            self._counters.increment("ecs_queue_server_errors_total", ("broker",))
            raise
        finally:
            self._counters.observe("ecs_queue_broker_round_trip_seconds", self._monotonic() - began)
