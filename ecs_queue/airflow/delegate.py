"""What the parts of the executor ask of it: they decide about requests, the executor changes Airflow's state."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from ecs_queue.airflow.tracked_workloads import TrackedWorkload
from ecs_queue.messages.result import TaskResult


class ExecutorDelegate(Protocol):
    """The executor, as the submitter, the result processor and the obsolete request stopper see it."""

    def workload_key(self, workload: Any) -> Hashable:
        """Return the key under which Airflow queues the workload."""
        ...

    def mark_accepted(self, tracked_workloads: Sequence[TrackedWorkload]) -> None:
        """The ledger has these requests: the workloads count as running, no longer as queued."""
        ...

    def report_id_again(self, tracked: TrackedWorkload, stored_id: str | None) -> None:
        """Airflow's database has another id than the one that was generated here: report it again.

        The scheduler drops an event of a row that is locked at the moment. Without the id no other scheduler could
        adopt the task. An id of another request is left alone: the task has been queued elsewhere.
        """
        ...

    def reject(self, key: Hashable, reason: str) -> None:
        """Fail a workload that can never run. The others are not affected."""
        ...

    def hold(self, key: Hashable, reason: str) -> None:
        """A workload cannot be sent until the configuration is corrected: say so once in the task's event log."""
        ...

    def report_result(self, tracked: TrackedWorkload, result: TaskResult, *, is_first: bool, never_ran: bool) -> None:
        """Report to the scheduler how the request ended; the first time also to the task's event log.

        Args:
            never_ran: Airflow's program in the container has not reported that the task runs.
        """
        ...

    def discard_result(self, tracked: TrackedWorkload, result: TaskResult) -> None:
        """The task has moved on: log how the request ended in its event log, and report nothing to the scheduler."""
        ...

    def requeue(self, tracked: TrackedWorkload, result: TaskResult) -> bool:
        """Queue a task again whose container was lost before the task ran, once, without using one of its tries.

        Returns:
            Whether it is queued again. Not when that was done before, and not when an earlier scheduler sent it.
        """
        ...

    def withhold_result(self, tracked: TrackedWorkload, result: TaskResult) -> None:
        """The task never started and Airflow is about to queue it again: it no longer runs, nothing is reported."""
        ...

    def is_event_collected(self, key: Hashable) -> bool:
        """Return whether the scheduler has collected the key's last event."""
        ...

    def mark_lost(self, tracked: TrackedWorkload) -> None:
        """The request is another scheduler's, or the ledger lost it: no result will come.

        Airflow's own time-outs decide about the workload.
        """
        ...

    def resend(self, tracked: Sequence[TrackedWorkload]) -> None:
        """Put again the requests that the ledger lost in a fail-over."""
        ...

    def list_unsent(self) -> list[TrackedWorkload]:
        """Return the tasks that still wait in the executor: the ledger is unavailable or their tokens have expired.

        A task for which no request was prepared has a request id that no request can have.
        """
        ...

    def withdraw(self, tracked: TrackedWorkload) -> None:
        """Forget a task that Airflow no longer waits for and whose container has not run, and stop its request."""
        ...

    def stop_running(self, tracked: TrackedWorkload) -> None:
        """Stop a container that Airflow no longer waits for. Its result is reported as any other."""
        ...
