"""Results on their way in: taken, told to the scheduler, told again until it has surely heard, then confirmed."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from ecs_queue.airflow.ledger_access import LedgerAccess
from ecs_queue.airflow.tracked_workloads import RoundRobin, TrackedWorkload, TrackedWorkloads, UnconfirmedResult
from ecs_queue.crash_points import crash_point
from ecs_queue.messages.envelope import TaskResult, build_result
from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

#: How often the ledger is asked for results whose messages were lost, and about some outstanding requests. Seconds.
LEDGER_CHECK_INTERVAL_SECONDS = 2.0
_RESULT_BATCH_SIZE = 500
_REQUEST_BATCH_SIZE = 200
#: How often the database is asked whether the scheduler has taken in what it was told. Seconds.
DATABASE_CHECK_INTERVAL_SECONDS = 3.0
_DATABASE_BATCH_SIZE = 500
#: A report that the scheduler never takes in is given up after so long: its task has another fate by then. Seconds.
GIVE_UP_SECONDS = 600.0
#: A server that loses its last second has kept what was put longer ago. Seconds.
_DURABLE_AFTER_SECONDS = 5.0


class ResultDelegate(Protocol):
    """What the executor does with a result."""

    def mark_accepted(self, tracked: TrackedWorkload) -> None:
        """The ledger has it after all: no longer queued, but running."""
        ...

    def report_result(self, tracked: TrackedWorkload, result: TaskResult, *, is_first: bool) -> None:
        """Tell the scheduler how it ended."""
        ...

    def withhold_result(self, tracked: TrackedWorkload, result: TaskResult) -> None:
        """It never started, and Airflow itself is about to queue it again: no longer running, and nothing told."""
        ...

    def is_event_collected(self, key: Hashable) -> bool:
        """Whether the scheduler has collected what it was told of this key."""
        ...

    def mark_lost(self, tracked: TrackedWorkload) -> None:
        """Nobody will ever say how it ended."""
        ...

    def resend(self, tracked_workloads: Sequence[TrackedWorkload]) -> None:
        """The ledger has lost these requests: put them again."""
        ...


class ResultProcessor:
    """`unsettled(flights)`: the ids of those whose end the scheduler has not taken in. `clock`: monotonic.

    `hold_seconds`: how long Airflow may take to queue a task again that did not start in time; then it is failed.
    """

    def __init__(
        self,
        ledger_access: LedgerAccess,
        tracked_workloads: TrackedWorkloads,
        executor: ResultDelegate,
        find_unprocessed: Callable[[Sequence[TrackedWorkload]], set[str]],
        withhold_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger_access = ledger_access
        self._tracked_workloads = tracked_workloads
        self._executor = executor
        self._find_unprocessed = find_unprocessed
        self._withhold_seconds = withhold_seconds
        self._round_robin = RoundRobin(tracked_workloads)
        self._clock = clock
        self._unconfirmed: dict[str, UnconfirmedResult] = {}
        self._to_confirm: dict[str, str] = {}  # id -> nonce
        self._to_stop: dict[str, None] = {}
        self._ledger_checked_at = float("-inf")
        self._database_checked_at = float("-inf")

    def __len__(self) -> int:
        """How many results the scheduler was told of and has not surely taken in."""
        return len(self._unconfirmed)

    def request_stop(self, request_id: str) -> None:
        """Ask for a stop with the next round; no I/O now, for the caller may hold locks."""
        self._to_stop[request_id] = None

    def check_ledger_soon(self) -> None:
        """Ask the ledger with the next round."""
        self._ledger_checked_at = float("-inf")

    def run_once(self, deadline: float) -> None:
        """One bounded pass over everything; `deadline`: monotonic. Raises only what the database raises."""
        self.flush()
        for result in self._ledger_access.receive_results(deadline):
            self._process_result(result)
        if (
            self._clock() - self._ledger_checked_at >= LEDGER_CHECK_INTERVAL_SECONDS
            and not self._ledger_access.is_backing_off
        ):
            self._ledger_checked_at = self._clock()
            self._process_undelivered()
            self._complete_adoptions()
            self._check_tracked()
        if self._clock() - self._database_checked_at >= DATABASE_CHECK_INTERVAL_SECONDS:
            self._database_checked_at = self._clock()
            self._check_database()

    def flush(self) -> None:
        """Stops and confirmations that are due."""
        stops = list(self._to_stop)
        if stops and self._ledger_access.stop(stops, "airflow") is not None:
            crash_point("airflow.stopped")
            for request_id in stops:
                self._to_stop.pop(request_id, None)
        confirms = list(self._to_confirm.items())
        if confirms and self._ledger_access.confirm(confirms) is not None:
            crash_point("airflow.confirmed")
            for request_id, _ in confirms:
                self._to_confirm.pop(request_id, None)

    def _process_result(self, result: TaskResult) -> None:
        if result.id in self._unconfirmed or result.id in self._to_confirm:
            return
        flight = self._tracked_workloads.get_by_request_id(result.id)
        if flight is None:  # revoked, replaced, or of an earlier life: nobody waits for it
            self._to_confirm[result.id] = result.nonce
            return
        if not flight.is_accepted:  # the ledger's answer was lost, its effect was not
            flight.is_accepted = True
            self._executor.mark_accepted(flight)
        self._tracked_workloads.drop(flight.key)
        if result.state == State.EXPIRED and flight.task_instance_id is not None:
            # A try of the task's own is not to be used up by a container that never started: Airflow's scheduler
            # finds it stuck in queued at this very moment, and queues it again, with a new token.
            self._unconfirmed[result.id] = UnconfirmedResult(
                flight, result, self._clock() + self._withhold_seconds, is_withheld=True
            )
            self._executor.withhold_result(flight, result)
            return
        self._unconfirmed[result.id] = UnconfirmedResult(flight, result, self._clock())
        self._executor.report_result(flight, result, is_first=True)

    def _process_undelivered(self) -> None:
        for result in self._ledger_access.get_undelivered_results(_RESULT_BATCH_SIZE + len(self._unconfirmed)) or ():
            self._process_result(result)

    def _check_tracked(self) -> None:
        """Ask about some requests under way, all of them in turn."""
        flights = [
            flight for flight in self._round_robin.next_batch(_REQUEST_BATCH_SIZE) if not flight.adoption_pending
        ]
        lost, regain = [], []
        for flight, record in zip(
            flights, self._ledger_access.get_records([f.request_id for f in flights]) or (), strict=False
        ):
            if record is None:
                lost.append(flight)
            elif record.owner == flight.previous_owner and record.owner != self._ledger_access.owner:
                regain.append(flight.request_id)  # the ledger has lost the adoption
            elif record.owner != self._ledger_access.owner:
                self._drop_lost(flight)  # another scheduler has adopted it, and its end with it
            elif record.is_terminal:
                self._process_result(build_result(record))
            elif self._clock() - flight.put_at > _DURABLE_AFTER_SECONDS:
                flight.prepared_request = flight.workload = None
        if self._ledger_access.adopt(regain):
            crash_point("airflow.readopted")
        self._executor.resend([flight for flight in lost if flight.prepared_request is not None])
        for flight in lost:
            if flight.prepared_request is None:
                self._drop_lost(flight)

    def _complete_adoptions(self) -> None:
        """Tasks that were adopted while the ledger could not be asked."""
        strays = [flight for flight in self._tracked_workloads if flight.adoption_pending][:_REQUEST_BATCH_SIZE]
        if not strays:
            return
        records = self._ledger_access.get_records([flight.request_id for flight in strays])
        if records is None or self.adopt(strays, records) is None:
            return
        for flight, record in zip(strays, records, strict=True):
            flight.adoption_pending = False
            if record is None:
                self._to_stop[flight.request_id] = None  # its message may still come
                self._drop_lost(flight)

    def adopt(self, tracked_workloads: Sequence[TrackedWorkload], records: Sequence[Record | None]) -> set[str] | None:
        """Take over those that the ledger knows; their ids. None: the ledger could not be reached."""
        found = [
            (flight, record) for flight, record in zip(tracked_workloads, records, strict=True) if record is not None
        ]
        answers = self._ledger_access.adopt([flight.request_id for flight, _ in found])
        if answers is None:
            return None
        crash_point("airflow.adopted")
        adopted = set()
        for (flight, record), answer in zip(found, answers, strict=True):
            if answer.code is not ResultCode.NOT_FOUND:
                flight.previous_owner = record.owner
                adopted.add(flight.request_id)
        if adopted:
            self.check_ledger_soon()
        return adopted

    def _drop_lost(self, tracked: TrackedWorkload) -> None:
        self._tracked_workloads.drop(tracked.key)
        self._executor.mark_lost(tracked)

    def _check_database(self) -> None:
        """The scheduler skips events of rows that another one has locked: tell it again what its tasks wait for."""
        now = self._clock()
        due = [report for report in self._unconfirmed.values() if self._executor.is_event_collected(report.tracked.key)]
        due = due[:_DATABASE_BATCH_SIZE]
        tasks = [report.tracked for report in due if report.tracked.task_instance_id is not None]
        waiting = self._find_unprocessed(tasks) if tasks else set()
        for report in due:
            flight, is_requeued = report.tracked, self._tracked_workloads.get_by_key(report.tracked.key) is not None
            is_over = flight.request_id not in waiting or now - report.report_at > GIVE_UP_SECONDS
            if is_over or (report.is_withheld and is_requeued):
                del self._unconfirmed[flight.request_id]
                self._to_confirm[flight.request_id] = report.result.nonce
                crash_point("airflow.processed")
            elif not is_requeued and now >= report.report_at:
                report.is_withheld = False
                self._executor.report_result(flight, report.result, is_first=False)
