"""Processes results: reports them to the scheduler until Airflow's database shows them, then confirms them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from ecs_queue.airflow.delegate import ExecutorDelegate
from ecs_queue.airflow.event_log import was_container_lost
from ecs_queue.airflow.ledger_access import LedgerAccess
from ecs_queue.airflow.task_instances import TaskStanding
from ecs_queue.airflow.tracked_workloads import RoundRobin, TrackedWorkload, TrackedWorkloads, UnconfirmedResult
from ecs_queue.crash_points import crash_point
from ecs_queue.messages.result import TaskResult, build_result
from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

#: How often the ledger is asked for results whose messages were lost, and about some of the tracked requests.
LEDGER_CHECK_INTERVAL_SECONDS = 2.0
_RESULT_BATCH_SIZE = 500
_REQUEST_BATCH_SIZE = 200
#: How often the database is asked whether the scheduler has processed the results reported to it.
DATABASE_CHECK_INTERVAL_SECONDS = 3.0
_DATABASE_BATCH_SIZE = 500
#: A result that the scheduler never processes is given up after this time: its task has another outcome by then.
GIVE_UP_SECONDS = 600.0
#: A server that loses its last second in a fail-over has kept what was put longer ago than this.
_DURABLE_AFTER_SECONDS = 5.0


class ResultProcessor:
    """Receives the results of one scheduler job. Used by the scheduler's one thread."""

    def __init__(
        self,
        ledger_access: LedgerAccess,
        tracked_workloads: TrackedWorkloads,
        executor: ExecutorDelegate,
        query_standings: Callable[[Sequence[TrackedWorkload]], Mapping[str, TaskStanding]],
        withhold_seconds: float,
    ) -> None:
        """Receive nothing yet.

        Args:
            query_standings: Returns by request id what the results mean to the tasks, from Airflow's database.
            withhold_seconds: How long Airflow may take to queue a task again that did not start in time. After that
                the task is failed.
        """
        self._ledger_access = ledger_access
        self._tracked_workloads = tracked_workloads
        self._executor = executor
        self._query_standings = query_standings
        self._withhold_seconds = withhold_seconds
        self._round_robin = RoundRobin(tracked_workloads)
        self._clock = time.monotonic
        self._unconfirmed: dict[str, UnconfirmedResult] = {}
        self._unreported: list[UnconfirmedResult] = []
        self._to_confirm: dict[str, str] = {}  # request id -> nonce
        self._to_stop: dict[str, None] = {}
        self._ledger_checked_at = float("-inf")
        self._database_checked_at = float("-inf")

    def __len__(self) -> int:
        """Return the number of results that the scheduler may not have processed yet."""
        return len(self._unconfirmed)

    def request_stop(self, request_id: str) -> None:
        """Stop the request in the next `run_once`. No I/O now: the caller may hold locks."""
        self._to_stop[request_id] = None

    def run_once(self, deadline: float) -> None:
        """Do everything that is due, in batches. Raises only what the database raises.

        Args:
            deadline: When to stop receiving results, by the monotonic clock.
        """
        self.flush()
        for result in self._ledger_access.receive_results(deadline):
            self._process_result(result)
        now = self._clock()
        if now - self._ledger_checked_at >= LEDGER_CHECK_INTERVAL_SECONDS and not self._ledger_access.is_backing_off:
            self._ledger_checked_at = now
            limit = _RESULT_BATCH_SIZE + len(self._unconfirmed)
            for result in self._ledger_access.get_undelivered_results(limit) or ():
                self._process_result(result)
            self._complete_adoptions()
            self._check_tracked()
        self._report_new_results()
        if now - self._database_checked_at >= DATABASE_CHECK_INTERVAL_SECONDS:
            self._database_checked_at = now
            self._check_database()

    def flush(self) -> None:
        """Send the pending stops and confirmations; they stay pending while the ledger is unavailable."""
        if self._to_stop and self._ledger_access.stop(list(self._to_stop), "airflow") is not None:
            crash_point("airflow.stopped")
            self._to_stop.clear()
        if self._to_confirm and self._ledger_access.confirm(list(self._to_confirm.items())) is not None:
            crash_point("airflow.confirmed")
            self._to_confirm.clear()

    def adopt(self, tracked_workloads: Sequence[TrackedWorkload], records: Sequence[Record | None]) -> set[str] | None:
        """Become the owner of the requests that have a record.

        Returns:
            The ids of the adopted requests; None when the ledger is unavailable.
        """
        found = [(tracked, record) for tracked, record in zip(tracked_workloads, records, strict=True) if record]
        adopt_results = self._ledger_access.adopt([tracked.request_id for tracked, _ in found])
        if adopt_results is None:
            return None
        crash_point("airflow.adopted")
        adopted = set()
        for (tracked, record), adopt_result in zip(found, adopt_results, strict=True):
            if adopt_result.code is not ResultCode.NOT_FOUND:
                tracked.previous_owner = record.owner
                adopted.add(tracked.request_id)
                self._ledger_checked_at = float("-inf")  # some may have ended
        return adopted

    def _process_result(self, result: TaskResult) -> None:
        if result.id in self._unconfirmed or result.id in self._to_confirm:
            return
        tracked = self._tracked_workloads.get_by_request_id(result.id)
        if tracked is None:  # revoked or replaced, so no workload waits for it
            self._to_confirm[result.id] = result.nonce
            return
        if not tracked.is_accepted:  # the ledger's answer was lost, its effect was not
            tracked.is_accepted = True
            self._executor.mark_accepted([tracked])
        self._tracked_workloads.drop(tracked.key)
        # An expired task never started, so it must not use up one of the task's tries: Airflow's scheduler finds it
        # stuck in queued at this moment, and queues it again with a new token.
        is_withheld = result.state == State.EXPIRED and tracked.task_instance_id is not None
        report_at = self._clock() + (self._withhold_seconds if is_withheld else 0.0)
        entry = self._unconfirmed[result.id] = UnconfirmedResult(tracked, result, report_at, is_withheld)
        if is_withheld:
            self._executor.withhold_result(tracked, result)
        else:
            self._unreported.append(entry)

    def _report_new_results(self) -> None:
        """Report the new results, and confirm silently those whose tasks have moved on.

        The scheduler takes a result of a task that is scheduled or queued again under the same try, as the next poke of
        a sensor, for the end of a task that was killed, and fails it.
        """
        while self._unreported:
            batch = self._unreported[:_DATABASE_BATCH_SIZE]
            tasks = [entry.tracked for entry in batch if entry.tracked.task_instance_id is not None]
            standings = self._query_standings(tasks) if tasks else {}
            for entry in batch:
                tracked, result = entry.tracked, entry.result
                standing = standings.get(tracked.request_id, TaskStanding.RUNNING)
                is_requeued = self._tracked_workloads.get_by_key(tracked.key) is not None
                never_ran = standing is TaskStanding.NOT_STARTED
                if standing is TaskStanding.MOVED_ON or is_requeued:
                    self._confirm_later(entry)
                    self._executor.discard_result(tracked, result)
                elif never_ran and was_container_lost(result) and self._executor.requeue(tracked, result):
                    self._confirm_later(entry)
                else:
                    self._executor.report_result(tracked, result, is_first=True, never_ran=never_ran)
            del self._unreported[: len(batch)]

    def _confirm_later(self, entry: UnconfirmedResult) -> None:
        del self._unconfirmed[entry.tracked.request_id]
        self._to_confirm[entry.tracked.request_id] = entry.result.nonce

    def _check_tracked(self) -> None:
        """Compare some of the tracked requests with their records; all of them in turn."""
        batch = self._round_robin.next_batch(_REQUEST_BATCH_SIZE)
        records = self._ledger_access.get_records([tracked.request_id for tracked in batch]) or ()
        owner = self._ledger_access.owner
        lost, to_readopt = [], []
        for tracked, record in zip(batch, records, strict=False):
            if record is None:
                lost.append(tracked)
            elif record.owner != owner and record.owner == tracked.previous_owner:
                to_readopt.append(tracked.request_id)  # the ledger has lost the adoption
            elif record.owner != owner:
                self._drop_lost(tracked)  # another scheduler has adopted it
            elif record.is_terminal:
                self._process_result(build_result(record))
            elif self._clock() - tracked.put_at > _DURABLE_AFTER_SECONDS:
                tracked.prepared_request = None
        if self._ledger_access.adopt(to_readopt):
            crash_point("airflow.readopted")
        self._executor.resend([tracked for tracked in lost if tracked.prepared_request is not None])
        for tracked in lost:
            if tracked.prepared_request is None:
                self._drop_lost(tracked)

    def _complete_adoptions(self) -> None:
        """Adopt the requests whose tasks were adopted while the ledger was unavailable."""
        pending = [tracked for tracked in self._tracked_workloads if tracked.adoption_pending][:_REQUEST_BATCH_SIZE]
        records = self._ledger_access.get_records([tracked.request_id for tracked in pending])
        if not pending or records is None or self.adopt(pending, records) is None:
            return
        for tracked, record in zip(pending, records, strict=True):
            tracked.adoption_pending = False
            if record is None:
                self.request_stop(tracked.request_id)  # its message may still arrive
                self._drop_lost(tracked)

    def _drop_lost(self, tracked: TrackedWorkload) -> None:
        self._tracked_workloads.drop(tracked.key)
        self._executor.mark_lost(tracked)

    def _check_database(self) -> None:
        """Confirm the results that the scheduler has processed, and report the others again.

        The scheduler drops the event of a task whose database row another scheduler has locked.
        """
        now = self._clock()
        due = [entry for entry in self._unconfirmed.values() if self._executor.is_event_collected(entry.tracked.key)]
        due = due[:_DATABASE_BATCH_SIZE]
        tasks = [entry.tracked for entry in due if entry.tracked.task_instance_id is not None]
        standings = self._query_standings(tasks) if tasks else {}
        for entry in due:
            request_id = entry.tracked.request_id
            is_requeued = self._tracked_workloads.get_by_key(entry.tracked.key) is not None
            standing = standings.get(request_id, TaskStanding.ENDED)
            is_over = not standing.is_waiting or now - entry.report_at > GIVE_UP_SECONDS
            if is_over or (entry.is_withheld and is_requeued):
                self._confirm_later(entry)
                crash_point("airflow.processed")
            elif not is_requeued and now >= entry.report_at:
                entry.is_withheld = False
                never_ran = standing is TaskStanding.NOT_STARTED
                self._executor.report_result(entry.tracked, entry.result, is_first=False, never_ran=never_ran)
