"""The executor's own metrics, through whatever Airflow sends its metrics with: StatsD, OpenTelemetry or nothing.

Named as those of Airflow's other executors: `ecs_queue_executor.` and what happened, with the tag `team_name` where
the executor is a team's. Slots and what fills them are BaseExecutor's own (`executor.open_slots` ...).
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

#: Counters, by name: what one count is.
COUNTERS = {
    "submitted": "a request that the ledger has accepted",
    "rejected": "a workload that can never run: its task was failed at once, with the reason in its event log",
    "results": "a result told to the scheduler; the tag `state` is the request's",
    "results_repeated": "a result told again, because the scheduler had not taken it in",
    "expired": "a task that did not start before its token expired; Airflow queues it again",
    "adopted": "a task taken over from a scheduler that died",
    "not_adopted": "a task of a dead scheduler that was never sent; Airflow queues it again",
    "revoked": "a task that Airflow took back, for it was stuck in queued",
    "withdrawn": "a request that Airflow no longer waited for, taken back before its container ran",
    "stopped": "a container that was stopped, for Airflow no longer waited for it",
    "resent": "a request that the ledger had lost at a fail-over, put again",
    "lost": "a request that is no longer this scheduler's",
    "ledger_unavailable": "a call of the ledger that failed",
    "broker_unavailable": "a call of the broker that failed",
    "errors": "an unexpected error, caught so that scheduling goes on",
}
#: Timers, in milliseconds, by name: what is timed.
TIMERS = {
    "submit.duration": "sending the workloads of one heartbeat",
    "sync.duration": "one `sync`: taking results and comparing with the ledger",
    "adopt_task_instances.duration": "one adoption",
}
#: Gauges, by name: what the value is.
GAUGES = {
    "outstanding": "requests under way of this scheduler job",
    "unconfirmed_results": "results told that Airflow's database does not show as taken in",
}
PREFIX = "ecs_queue_executor"


class ExecutorMetrics:
    """`stats`: Airflow's; None: that of the installed Airflow. Used by the scheduler's one thread."""

    def __init__(self, team: str | None, stats: Any = None) -> None:
        self._stats = _find_airflow_stats() if stats is None else stats
        self._tags = {"team_name": team} if team else {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def incr(self, name: str, count: int = 1, *, state: str = "") -> None:
        """Count; it goes out with the next `send`, thousands in one packet."""
        assert name in COUNTERS, name
        self._counts[name, state] += count

    def flush(self, **gauges: float) -> None:
        """What was counted since the last time, and the present value of each of GAUGES."""
        assert gauges.keys() <= GAUGES.keys(), gauges
        for (name, state), count in self._counts.items():
            if count:
                self._stats.incr(f"{PREFIX}.{name}", count, tags=self._tags | ({"state": state} if state else {}))
        self._counts.clear()
        for name, value in gauges.items():
            self._stats.gauge(f"{PREFIX}.{name}", value, tags=self._tags)

    def timer(self, name: str) -> AbstractContextManager[Any]:
        """Time a block."""
        assert name in TIMERS, name
        timer: AbstractContextManager[Any] = self._stats.timer(f"{PREFIX}.{name}", tags=self._tags)
        return timer


def _find_airflow_stats() -> Any:
    """What BaseExecutor itself uses: only that is set up in the scheduler, and its name is each version's own."""
    from airflow.executors import base_executor

    return getattr(base_executor, "stats", None) or base_executor.Stats
