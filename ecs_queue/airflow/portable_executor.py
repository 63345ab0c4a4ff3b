"""BaseExecutor with one interface for Airflow 3.1 to 3.4: what differs between the versions is here."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

from airflow.executors.base_executor import BaseExecutor

from ecs_queue.airflow.metrics import ExecutorMetrics
from ecs_queue.error_text import traceback_text

#: The shortest time between two log entries about unexpected errors; each has its trace.
_ERROR_LOG_INTERVAL_SECONDS = 60.0
#: BaseExecutor's dicts of queued workloads before Airflow 3.4, which has one dict of them, `executor_queues`.
_QUEUE_ATTRIBUTES = ("queued_tasks", "queued_callbacks", "queued_connection_tests")


def find_supported_workload_types() -> frozenset[Any]:
    """Return the workload types that the executor runs, for Airflow 3.4. Empty for older versions, which read flags."""
    try:
        base = import_module("airflow.executors.workloads.base")
    except ImportError:  # Airflow 3.1 has one module for all workloads
        return frozenset()
    types = getattr(base, "WorkloadType", None)
    names = ("EXECUTE_TASK", "EXECUTE_CALLBACK", "TEST_CONNECTION")
    return frozenset(getattr(types, name) for name in names if hasattr(types, name))


class PortableExecutor(BaseExecutor):  # type: ignore[misc]  # Airflow is not installed where types are checked
    """Every kind of workload, in priority order, with the keys and queues of the installed version."""

    supported_workload_types: ClassVar[frozenset[Any]] = find_supported_workload_types()
    #: Keys of tasks are UUIDs where Airflow can take them: one key never means two attempts.
    supports_task_instance_uuid: ClassVar[bool] = hasattr(BaseExecutor, "get_task_key")

    if not supported_workload_types:  # Airflow 3.4 warns of these
        supports_callbacks: bool = True
        supports_connection_test: bool = True

    if not hasattr(BaseExecutor, "trigger_workloads"):  # Airflow 3.4 sorts by itself and warns of this

        def order_queued_tasks_by_priority(self) -> list[tuple[Any, Any]]:
            """Return the queued tasks, the highest `priority_weight` first. Airflow 3.2 has the lowest first."""
            queued = super().order_queued_tasks_by_priority()
            return sorted(queued, key=lambda item: item[1].ti.priority_weight, reverse=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unsaved_event_logs: list[Any] = []
        self._error_logged_at = float("-inf")
        self.metrics = ExecutorMetrics(getattr(self, "team_name", None))

    def log_task_event(self, *, event: str, extra: str, ti_key: Any) -> None:
        """Add an entry to a task's event log and keep it until it is saved. Callbacks and connection tests have no log.

        The scheduler passes the entries to SQLAlchemy's bulk_save_objects as a generator, which keeps weak references
        only: without another reference they would be empty when they are written, and the whole batch would fail.
        """
        if not self.supports_task_instance_uuid and not hasattr(ti_key, "dag_id"):  # Airflow 3.2 does not check this
            return
        known = len(self._task_event_logs)
        super().log_task_event(event=event, extra=extra, ti_key=ti_key)
        self._unsaved_event_logs += list(self._task_event_logs)[known:]

    def forget_saved_event_logs(self) -> None:
        """Drop the entries of earlier heartbeats, which the scheduler has saved."""
        self._unsaved_event_logs = list(self._task_event_logs)

    def task_key(self, ti: Any) -> Any:
        """Return the key under which Airflow queues the task instance."""
        return self.get_task_key(ti) if self.supports_task_instance_uuid else ti.key

    def airflow_queues(self) -> list[dict[Any, Any]]:
        """Return BaseExecutor's dicts of queued workloads by key."""
        queues = getattr(self, "executor_queues", None)  # Airflow 3.4, whose three old names are views of it
        return [getattr(self, name, {}) for name in _QUEUE_ATTRIBUTES] if queues is None else list(queues.values())

    def remove_from_queues(self, *keys: Any) -> None:
        """Drop the workloads from BaseExecutor's queues, where one of them has them."""
        for queue in filter(None, self.airflow_queues()):
            for key in keys:
                queue.pop(key, None)

    def run_logging_errors(self, action: Callable[[], None]) -> None:
        """Log any exception: the scheduler would end with it."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the scheduler would end with it
            self.metrics.incr("errors")
            if time.monotonic() - self._error_logged_at >= _ERROR_LOG_INTERVAL_SECONDS:
                self._error_logged_at = time.monotonic()
                self.log.error("ecs-queue: an unexpected error; scheduling continues: %s", traceback_text(error))
