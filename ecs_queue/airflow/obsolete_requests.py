"""Finds and stops the requests that Airflow no longer waits for.

The scheduler does not inform the executor when a task is cleared, marked, or skipped with its DAG run. Airflow's API
server refuses a container that starts nevertheless, and informs a running one with its next heartbeat. So a request
whose container has not started is withdrawn; a running container may end itself, and is stopped when it does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from ecs_queue.airflow.delegate import ExecutorDelegate
from ecs_queue.airflow.ledger_access import LedgerAccess
from ecs_queue.airflow.tracked_workloads import RoundRobin, TrackedWorkload, TrackedWorkloads
from ecs_queue.protocol.record import Record

#: How often Airflow's database is queried.
CHECK_INTERVAL_SECONDS = 5.0
#: A request is withdrawn after two queries, at least this far apart, that both find it obsolete.
RECHECK_SECONDS = 4.0
#: The longest time between a container's start and the ledger's knowledge of it.
START_REPORT_DELAY_SECONDS = 60.0
_BATCH_SIZE = 300


class ObsoleteRequestStopper:
    """Checks batches of requests in turn, and withdraws or stops the obsolete ones."""

    def __init__(
        self,
        ledger_access: LedgerAccess,
        tracked_workloads: TrackedWorkloads,
        executor: ExecutorDelegate,
        find_obsolete: Callable[[Sequence[TrackedWorkload]], set[str]],
        find_other_ids: Callable[[Sequence[TrackedWorkload]], Mapping[str, str | None]],
        stop_after_seconds: float,
    ) -> None:
        """Check nothing yet.

        Args:
            find_obsolete: Returns the request ids of those workloads that no task waits for.
            find_other_ids: Returns what the database has in place of the request ids, where it differs.
            stop_after_seconds: How long a running container may take to end itself.
        """
        self._ledger_access = ledger_access
        self._tracked_workloads = tracked_workloads
        self._round_robin = RoundRobin(tracked_workloads)
        self._executor = executor
        self._find_obsolete = find_obsolete
        self._find_other_ids = find_other_ids
        self._stop_after_seconds = stop_after_seconds
        self._clock = time.monotonic
        self._checked_at = self._clock()
        self._obsolete_since: dict[str, float] = {}  # by request id

    def run_once(self) -> None:
        """Check one batch when a check is due. Raises only what the database raises."""
        now = self._clock()
        if now - self._checked_at < CHECK_INTERVAL_SECONDS:
            return
        self._checked_at = now
        batch = {tracked.request_id: tracked for tracked in self._next_batch()}
        self._report_missing_ids([one for one in batch.values() if one.id_generated and one.is_accepted])
        obsolete = self._find_obsolete(list(batch.values())) if batch else set()
        self._obsolete_since = {request_id: self._obsolete_since.get(request_id, now) for request_id in obsolete}
        confirmed = [batch[name] for name, since in self._obsolete_since.items() if now - since >= RECHECK_SECONDS]
        for tracked in confirmed:
            if not tracked.is_accepted:
                self._withdraw(tracked)
        accepted = [tracked for tracked in confirmed if tracked.is_accepted and not tracked.stop_requested]
        records = self._ledger_access.get_records([tracked.request_id for tracked in accepted])
        for tracked, record in zip(accepted, records or (), strict=False):
            self._stop_or_withdraw(tracked, record, now)

    def _report_missing_ids(self, tracked_workloads: Sequence[TrackedWorkload]) -> None:
        other_ids = self._find_other_ids(tracked_workloads) if tracked_workloads else {}
        for tracked in tracked_workloads:
            if tracked.request_id in other_ids:
                self._executor.report_id_again(tracked, other_ids[tracked.request_id])
            else:
                tracked.id_generated = False

    def _next_batch(self) -> list[TrackedWorkload]:
        """Unsent tasks, the requests that the last check found obsolete, and the next ones in turn."""
        candidates = [self._tracked_workloads.get_by_request_id(request_id) for request_id in self._obsolete_since]
        return [
            *self._executor.list_unsent()[:_BATCH_SIZE],
            *[tracked for tracked in candidates if tracked is not None][:_BATCH_SIZE],
            *[tracked for tracked in self._round_robin.next_batch(_BATCH_SIZE) if tracked.task_instance_id],
        ]

    def _withdraw(self, tracked: TrackedWorkload) -> None:
        del self._obsolete_since[tracked.request_id]
        self._executor.withdraw(tracked)

    def _stop_or_withdraw(self, tracked: TrackedWorkload, record: Record | None, now: float) -> None:
        if record is None or record.is_terminal:
            return  # the result processor handles it
        waited = now - self._obsolete_since[tracked.request_id]
        if record.started_at:
            if waited >= self._stop_after_seconds:
                tracked.stop_requested = True
                self._executor.stop_running(tracked)
        elif not record.arn or waited >= START_REPORT_DELAY_SECONDS:
            self._withdraw(tracked)
