"""Asks AWS about the clusters of the worker's queues: at the start, and again while an answer is missing or bad."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ecs_queue.ecs.cluster_check import capacity_finding
from ecs_queue.findings import Finding, Reporter, Severity
from ecs_queue.protocol.ecs_results import EcsError
from ecs_queue.protocol.retry import Backoff
from ecs_queue.worker.context import WorkerContext

#: From the first to the longest wait before a cluster is asked for again. Seconds.
_BACKOFF = Backoff(base=10.0, cap=600.0)
#: The wait while nothing is to be asked. Seconds.
_IDLE_INTERVAL = 600.0


class ClusterMonitor:
    """One thread calls `ask_for_strategies` and `check`, then one calls `step`; `reasons` is thread-safe."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._unknown: dict[str, EcsError] = {}  # queue -> why the default strategy of its cluster is not known
        self._unusable: dict[str, Finding] = {}  # queue -> what is wrong with its cluster
        self._tries = 0

    def ask_for_strategies(self) -> None:
        """Ask the cluster of each queue that leaves the capacity to it for its default strategy."""
        self._ask(self._context.queues)

    def check(self) -> Iterator[Finding]:
        """Yield findings about queues: a strategy that is not known, and where the profile wants it, the cluster."""
        for queue, error in self._unknown.items():
            asks = self._context.config.profile(queue).capacity_provider_strategy is not None
            yield capacity_finding(Reporter(queue), None, asks_for_default=asks, reason=error.reason)
        for queue in self._context.queues:
            if self._context.profile(queue).check_health_on_startup:
                yield self._check_cluster(queue)

    def step(self) -> float:
        """Ask again what is not known or was bad; return the seconds until the next time."""
        if self._tries:
            self._ask(list(self._unknown))
            for queue in list(self._unusable):
                self._check_cluster(queue)
        self._tries += 1
        if not (self._unknown or self._unusable):
            return _IDLE_INTERVAL
        return _BACKOFF.delay(self._tries, self._context.rng)

    def reasons(self) -> list[str]:
        """Return what is wrong with clusters, for the worker's health."""
        return [finding.sentence for finding in list(self._unusable.values())]

    def _ask(self, queues: Iterable[str]) -> None:
        for queue in queues:
            error = self._context.ask_for_cluster_strategy(queue)
            if error is not None:
                self._unknown[queue] = error
            elif self._unknown.pop(queue, None):
                text = f"queue {queue}: the default strategy of its cluster is known"
                self._context.telemetry.emit("check.finding", reason=text)

    def _check_cluster(self, queue: str) -> Finding:
        finding = self._context.gateway.check_cluster(self._context.target_for(queue), Reporter(queue))
        if finding.severity is Severity.ERROR:
            self._unusable[queue] = finding
        elif self._unusable.pop(queue, None):
            self._context.telemetry.emit("check.finding", reason=f"queue {finding.sentence}")
        return finding
