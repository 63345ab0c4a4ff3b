"""What a worker knows of itself: its gauges, whether its services run, and whether it can work now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from ecs_queue.ledger.base import WorkerInfo
from ecs_queue.monitoring.catalogue import Sample
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.metrics import WorkerMetrics
from ecs_queue.worker.service import Service, ThreadService

#: A worker without a heartbeat for this time counts as dead (`_HEARTBEAT_TTL` of the worker). Seconds.
_HEARTBEAT_TIMEOUT = 15.0


class StatusReader:
    """See `monitoring.monitor.WorkerStatus`. Thread-safe."""

    def __init__(
        self,
        context: WorkerContext,
        metrics: WorkerMetrics,
        services: Sequence[Service],
        read_info: Callable[[], WorkerInfo],
        count_pending_results: Callable[[], int],
        stopping: threading.Event,
    ) -> None:
        self._context = context
        self._metrics = metrics
        self._services = services
        self._read_info = read_info
        self._count_pending_results = count_pending_results
        self._stopping = stopping

    def read_gauges(self) -> list[Sample]:
        """See `WorkerStatus.read_gauges`."""
        info, circuits = self._read_info(), self._context.circuit_breakers
        samples = [
            Sample("ecs_queue_build_info", 1, (info.version,)),
            Sample("ecs_queue_start_time_seconds", info.started_at),
            Sample("ecs_queue_concurrency", info.concurrency),
            Sample("ecs_queue_launches_in_progress", info.launches_in_progress),
            Sample("ecs_queue_draining", self._stopping.is_set()),
            Sample("ecs_queue_failing_services", len(self._context.outages.reasons())),
            Sample("ecs_queue_results_pending", self._count_pending_results()),
        ]
        if info.broker_poll_age is not None:
            samples.append(Sample("ecs_queue_broker_poll_age_seconds", info.broker_poll_age))
        return samples + [Sample("ecs_queue_circuit_open", circuits.is_open(queue), (queue,)) for queue in info.queues]

    def find_stopped_services(self) -> list[str]:
        """See `WorkerStatus.find_stopped_services`."""
        found = [service.find_fault() for service in self._services if isinstance(service, ThreadService)]
        return [fault for fault in found if fault]

    def find_obstacles(self) -> list[str]:
        """See `WorkerStatus.find_obstacles`: what `ecs-queue workers` shows as health, and what ends or begins."""
        if self._stopping.is_set():
            return ["the worker stops"]
        found = [*self.find_stopped_services(), *self._context.outages.reasons()]
        circuits = self._context.circuit_breakers.health()
        if circuits != "ok":
            found.append(circuits)
        age = self._metrics.heartbeats.age()
        if age is None or age > _HEARTBEAT_TIMEOUT:
            found.append("no heartbeat has reached the ledger" + (f" for {age:.0f} s" if age is not None else " yet"))
        return found

    def send_heartbeat(self, send: Callable[[], None]) -> None:
        """Send a heartbeat, and measure its round trip when it arrives."""
        began = time.monotonic()
        send()
        self._metrics.heartbeats.mark()
        self._metrics.counters.observe("ecs_queue_ledger_round_trip_seconds", time.monotonic() - began)
