"""Finds and stops what Airflow no longer waits for.

The scheduler says nothing when a task is cleared, marked, or skipped with its DAG run: its API server refuses what
starts all the same, and tells a running container with its next heartbeat. So what has not started is taken back, and
what runs is left to end itself, and stopped when it does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ecs_queue.airflow.ledger_access import LedgerAccess
from ecs_queue.airflow.tracked_workloads import RoundRobin, TrackedWorkload, TrackedWorkloads
from ecs_queue.protocol.record import Record

#: How often Airflow's database is asked. Seconds.
CHECK_INTERVAL_SECONDS = 5.0
#: Two looks at least this far apart agree before anything is taken back. Seconds.
RECHECK_SECONDS = 4.0
#: The ledger may learn so much later that a launched container runs. Seconds.
START_REPORT_DELAY_SECONDS = 60.0
_BATCH_SIZE = 300


class ObsoleteRequestDelegate(Protocol):
    """What the executor does about them."""

    def list_unsent(self) -> list[TrackedWorkload]:
        """Tasks that wait in the executor itself, as flights."""
        ...

    def withdraw(self, tracked: TrackedWorkload) -> None:
        """Nothing has started: forget it, and have it revoked should it have been sent."""
        ...

    def stop_running(self, tracked: TrackedWorkload) -> None:
        """A container runs on for nobody: have it stopped; its end is told as any other."""
        ...


class ObsoleteRequestStopper:
    """`unwanted(flights)`: the ids of those that no task waits for. `patience`: seconds for a container to end itself.

    `clock`: monotonic.
    """

    def __init__(
        self,
        ledger_access: LedgerAccess,
        tracked_workloads: TrackedWorkloads,
        executor: ObsoleteRequestDelegate,
        find_obsolete: Callable[[Sequence[TrackedWorkload]], set[str]],
        stop_after_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger_access = ledger_access
        self._tracked_workloads = tracked_workloads
        self._round_robin = RoundRobin(tracked_workloads)
        self._executor = executor
        self._find_obsolete = find_obsolete
        self._stop_after_seconds = stop_after_seconds
        self._clock = clock
        self._checked_at = clock()
        self._candidates: dict[str, TrackedWorkload] = {}

    def run_once(self) -> None:
        """One bounded look, when one is due. Raises only what the database raises."""
        now = self._clock()
        if now - self._checked_at < CHECK_INTERVAL_SECONDS:
            return
        self._checked_at = now
        self._find_candidates(now)
        doubted = [flight for flight in self._candidates.values() if self._is_rechecked(flight, now)]
        self._withdraw([flight for flight in doubted if not flight.is_accepted])
        sent = [flight for flight in doubted if flight.is_accepted and not flight.stop_requested]
        records = self._ledger_access.get_records([flight.request_id for flight in sent])
        for flight, record in zip(sent, records or (), strict=False):
            self._stop_or_withdraw(flight, record, now)

    def _find_candidates(self, now: float) -> None:
        """Ask about those in doubt and some more."""
        known = [flight for flight in self._candidates.values() if self._is_tracked(flight)][:_BATCH_SIZE]
        fresh = [
            flight
            for flight in self._round_robin.next_batch(_BATCH_SIZE)
            if flight.task_instance_id and not flight.adoption_pending
        ]
        flights = {
            flight.request_id: flight for flight in [*self._executor.list_unsent()[:_BATCH_SIZE], *known, *fresh]
        }
        unwanted = self._find_obsolete(list(flights.values())) if flights else set()
        earlier = self._candidates
        self._candidates = {}
        for request_id in unwanted:
            flight = flights[request_id]
            since = earlier[request_id].obsolete_since if request_id in earlier else None
            flight.obsolete_since = now if since is None else since
            self._candidates[request_id] = flight

    def _is_tracked(self, tracked: TrackedWorkload) -> bool:
        return self._tracked_workloads.get_by_request_id(tracked.request_id) is tracked

    @staticmethod
    def _is_rechecked(tracked: TrackedWorkload, now: float) -> bool:
        return tracked.obsolete_since is not None and now - tracked.obsolete_since >= RECHECK_SECONDS

    def _withdraw(self, tracked_workloads: Sequence[TrackedWorkload]) -> None:
        for flight in tracked_workloads:
            del self._candidates[flight.request_id]
            self._executor.withdraw(flight)

    def _stop_or_withdraw(self, tracked: TrackedWorkload, record: Record | None, now: float) -> None:
        if record is None or record.is_terminal:
            return  # the ledger's own rounds see to it
        waited = now - (tracked.obsolete_since or now)
        if record.started_at:
            if waited >= self._stop_after_seconds:
                tracked.stop_requested = True
                self._executor.stop_running(tracked)
        elif not record.arn or waited >= START_REPORT_DELAY_SECONDS:
            self._withdraw([tracked])
