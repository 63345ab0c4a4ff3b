"""The executor's own metrics, sent with Airflow's metrics client: StatsD, OpenTelemetry or none.

Their names begin with `ecs_queue_executor.`, as those of Airflow's other executors; a team's executor adds the tag
`team_name`. The number of slots and their use are BaseExecutor's own metrics (`executor.open_slots` ...).
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

#: Counters and what they count.
COUNTERS = {
    "submitted": "requests that the ledger has accepted",
    "rejected": "workloads that can never run; their tasks were failed at once, with the reason in the event log",
    "results": "results reported to the scheduler; the tag `state` is the request's state",
    "results_repeated": "results reported again, because the scheduler had not processed them",
    "results_discarded": "results not reported, because their tasks were cleared, rescheduled, deferred or retried",
    "expired": "tasks that did not start before their tokens expired; Airflow queues them again",
    "requeued": "tasks queued again once, because their containers were lost before the tasks ran",
    "adopted": "tasks adopted from a scheduler that died",
    "not_adopted": "tasks of a dead scheduler that were never sent; Airflow queues them again",
    "revoked": "tasks that Airflow revoked, because they were stuck in queued",
    "withdrawn": "requests withdrawn before their containers ran, because Airflow no longer waited for them",
    "stopped": "running containers stopped, because Airflow no longer waited for them",
    "resent": "requests put again, because the ledger had lost them in a fail-over",
    "lost": "requests that are no longer this scheduler's",
    "ledger_unavailable": "failed calls of the ledger",
    "broker_unavailable": "failed calls of the broker",
    "errors": "unexpected errors, caught so that scheduling continues",
}
#: Timers, in milliseconds, and what they time.
TIMERS = {
    "submit.duration": "sending the workloads of one heartbeat",
    "sync.duration": "one `sync`: receiving results and comparing with the ledger and the database",
    "adopt_task_instances.duration": "one adoption",
}
#: Gauges and what their values are.
GAUGES = {
    "outstanding": "requests of this scheduler job that have not ended",
    "unconfirmed_results": "reported results that Airflow's database does not show as processed yet",
}
PREFIX = "ecs_queue_executor"


class ExecutorMetrics:
    """Collects counts and sends them in one packet per heartbeat. Used by the scheduler's one thread."""

    def __init__(self, team: str | None, stats: Any = None) -> None:
        """Send to `stats`; by default to the installed Airflow's metrics client."""
        self._stats = _find_airflow_stats() if stats is None else stats
        self._tags = {"team_name": team} if team else {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def incr(self, name: str, count: int = 1, *, state: str = "") -> None:
        """Add to one of COUNTERS; the next `flush` sends it."""
        assert name in COUNTERS, name
        self._counts[name, state] += count

    def flush(self, **gauges: float) -> None:
        """Send the counts since the last call, and the values of GAUGES."""
        assert gauges.keys() <= GAUGES.keys(), gauges
        for (name, state), count in self._counts.items():
            if count:
                self._stats.incr(f"{PREFIX}.{name}", count, tags=self._tags | ({"state": state} if state else {}))
        self._counts.clear()
        for name, value in gauges.items():
            self._stats.gauge(f"{PREFIX}.{name}", value, tags=self._tags)

    def timer(self, name: str) -> AbstractContextManager[Any]:
        """Return a context whose duration is sent as one of TIMERS."""
        assert name in TIMERS, name
        timer: AbstractContextManager[Any] = self._stats.timer(f"{PREFIX}.{name}", tags=self._tags)
        return timer


def _find_airflow_stats() -> Any:
    """The client of BaseExecutor: the only one that the scheduler sets up; its name differs between versions."""
    from airflow.executors import base_executor

    return getattr(base_executor, "stats", None) or base_executor.Stats
