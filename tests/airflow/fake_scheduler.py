"""A scheduler as its executor sees it: `python -m tests.airflow.fake_scheduler DATABASE JOB ACTION NAME...`.

DATABASE is the file of a FakeDatabase, which outlives a scheduler that is killed. ACTION is `run` (until all tasks have
ended) or `revoke` (the tasks are first revoked, as if they were stuck in queued). A name that begins with "callback" is
a callback's.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ecs_queue.airflow.executor import EcsQueueExecutor
from ecs_queue.airflow.task_instances import TaskStanding, classify_state
from ecs_queue.airflow.tracked_workloads import TrackedWorkload
from tests.airflow.fake_database import FakeDatabase, is_callback
from tests.airflow.harness import AirflowHarness, FakeTaskInstance, make_callback, make_task_workload

_HEARTBEAT_INTERVAL_SECONDS = 0.05


class FakeScheduler:
    """One scheduler job."""

    def __init__(self, database: FakeDatabase, job_id: int) -> None:
        self._database = database
        executor = EcsQueueExecutor(parallelism=100)
        executor.job_id = job_id
        self._harness = AirflowHarness.from_executor(executor)
        executor._result_processor._query_standings = self._query_standings
        self._names_by_key: dict[Any, str] = {}

    def schedule(self, names: Sequence[str]) -> None:
        """Add the tasks and callbacks that the database does not have yet."""
        for name in names:
            if name not in self._database.read_rows():
                self._database.commit(name, id=str(uuid.uuid4()), state="scheduled", request=None)

    def adopt(self) -> None:
        """Adopt the tasks of an earlier scheduler; schedule again those that the executor does not adopt."""
        orphans = []
        for name, row in self._database.read_rows().items():
            if row["state"] == "queued" and is_callback(name):
                self._database.commit(name, state="scheduled")
            elif row["state"] == "queued":
                orphans.append(FakeTaskInstance(self._build_workload(name, row), row["request"]))
        not_adopted = self._harness.executor.try_adopt_task_instances(orphans) if orphans else []
        for orphan in not_adopted:
            self._database.commit(self._names_by_key[orphan.key], state="scheduled", request=None)

    def queue(self) -> None:
        """Queue what is scheduled. As in Airflow the state is committed first, with the id if Airflow assigns one."""
        for name, row in self._database.read_rows().items():
            if row["state"] == "scheduled":
                workload = self._build_workload(name, row)
                task = None if is_callback(name) else workload.ti
                assigned = workload.callback.id if task is None else getattr(task, "external_executor_id", None)
                self._database.commit(name, state="queued", request=assigned)
                self._harness.queue(workload)

    def revoke(self) -> None:
        """Revoke all tasks, so that they are queued again."""
        for name, row in self._database.read_rows().items():
            self._database.commit(name, state="scheduled", request=None)
            self._harness.executor.revoke_task(ti=FakeTaskInstance(self._build_workload(name, row), row["request"]))

    def heartbeat(self) -> None:
        """Make one heartbeat and commit the executor's events."""
        self._harness.heartbeat()
        for key, (state, info) in self._harness.collect_events().items():
            reported = {"request": info} if state == "queued" else {}
            self._database.commit(self._names_by_key[key], state=state, **reported)

    @property
    def is_idle(self) -> bool:
        """Whether everything has ended in the database, and every stop and confirmation has been sent."""
        processor = self._harness.executor._result_processor
        ended = all(row["state"] in {"success", "failed"} for row in self._database.read_rows().values())
        return ended and not processor and not processor._to_confirm and not processor._to_stop

    def close(self) -> None:
        self._harness.close()

    def _build_workload(self, name: str, row: dict[str, Any]) -> Any:
        is_task = not is_callback(name)
        workload = make_task_workload(name, id=uuid.UUID(row["id"])) if is_task else make_callback(row["id"])
        self._names_by_key[self._harness.executor.workload_key(workload)] = name
        return workload

    def _query_standings(self, tracked_workloads: Sequence[TrackedWorkload]) -> dict[str, TaskStanding]:
        rows = self._database.read_rows()
        return {one.request_id: classify_state(rows[self._names_by_key[one.key]]["state"]) for one in tracked_workloads}


def main(database_path: str, job_id: str, action: str, *names: str) -> None:
    """Run until everything in the database has ended."""
    scheduler = FakeScheduler(FakeDatabase(Path(database_path)), int(job_id))
    scheduler.adopt()
    scheduler.schedule(names)
    if action == "revoke":
        scheduler.queue()
        scheduler.heartbeat()
        scheduler.revoke()
    while not scheduler.is_idle:
        scheduler.queue()
        scheduler.heartbeat()
        time.sleep(_HEARTBEAT_INTERVAL_SECONDS)
    scheduler.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
