"""What this worker has in flight: the reference API's `EcsTaskCollection`, shared by its threads.

A cache, not a truth: the ledger has the truth, and a worker that dies loses nothing with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ecs_queue.tasks import EcsExecutorTask, EcsQueuedTask, EcsTaskCollection


class InFlightTasks:
    """Tasks that this worker launched or looked at lately, by request id and by ARN. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float], forget_after: float = 300.0) -> None:
        """A task that was not touched for `forget_after` seconds is followed by another worker, and forgotten here."""
        self._monotonic = monotonic
        self._forget_after = forget_after
        self._lock = threading.Lock()
        self._tasks = EcsTaskCollection()
        self._touched: dict[str, float] = {}

    def add(self, arn: str, task: EcsQueuedTask) -> None:
        """A task has been launched, or taken over."""
        seen = EcsExecutorTask(arn, "PROVISIONING", "RUNNING", [])
        key = str(task.key)
        with self._lock:
            self._tasks.add_task(seen, key, task.queue, task.command, task.executor_config, task.attempt_number)
            self._touched[key] = self._monotonic()

    def update(self, record_id: str, task: EcsExecutorTask) -> None:
        """ECS has shown it."""
        with self._lock:
            if record_id in self._touched and task.task_arn in self._tasks.tasks:
                self._tasks.update_task(task)
                self._touched[record_id] = self._monotonic()

    def drop(self, record_id: str) -> None:
        """It has ended, or goes to its next attempt."""
        with self._lock:
            self._drop(record_id)

    def untracked_ids(self, ids: list[str]) -> list[str]:
        """Those of the ids that are not in flight here; the others count as touched."""
        now = self._monotonic()
        with self._lock:
            missing = [record_id for record_id in ids if record_id not in self._touched]
            for record_id in ids:
                if record_id in self._touched:
                    self._touched[record_id] = now
        return missing

    def forget_untouched(self) -> None:
        """Drop what another worker follows by now."""
        limit = self._monotonic() - self._forget_after
        with self._lock:
            for record_id in [key for key, at in self._touched.items() if at < limit]:
                self._drop(record_id)

    def __len__(self) -> int:
        return len(self._tasks)

    def _drop(self, record_id: str) -> None:
        if self._touched.pop(record_id, None) is not None:
            self._tasks.pop_by_key(record_id)
