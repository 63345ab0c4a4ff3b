"""A scheduler as far as its executor sees one: `python -m tests.airflow.fake_scheduler BOOK JOB ACT NAME...`.

The book is what Airflow's database keeps: a line is a commit, so a scheduler that is killed leaves it to the next.
ACT is `run` (the tasks come to their ends) or `revoke` (they are taken back first, as when they are stuck in queued).
A name that begins with "callback" is a callback's.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.executors import workloads

from ecs_queue.airflow.executor import EcsQueueExecutor
from ecs_queue.airflow.tracked_workloads import TrackedWorkload
from tests.airflow.fake_database import FakeDatabase, is_callback
from tests.airflow.harness import AirflowHarness, FakeTaskInstance, make_task_workload, make_token

_HEARTBEAT_INTERVAL_SECONDS = 0.05


class FakeScheduler:
    """One scheduler job."""

    def __init__(self, database: FakeDatabase, job_id: int) -> None:
        self._database = database
        executor = EcsQueueExecutor(parallelism=100)
        executor.job_id = job_id
        self._harness = AirflowHarness.from_executor(executor)
        executor._result_processor._find_unprocessed = self._find_unprocessed
        self._names_by_key: dict[Any, str] = {}

    def schedule(self, names: Sequence[str]) -> None:
        """They are to run, and nobody has queued them."""
        for name in names:
            if name not in self._database.read_rows():
                self._database.commit(name, id=str(uuid.uuid4()), state="scheduled", request=None)

    def adopt(self) -> None:
        """What an earlier scheduler has queued; what the executor does not take is to be queued again."""
        orphans = []
        for name, entry in self._database.read_rows().items():
            if entry["state"] == "queued" and is_callback(name):
                self._database.commit(name, state="scheduled")
            elif entry["state"] == "queued":
                orphans.append(FakeTaskInstance(self._build_workload(name, entry), entry["request"]))
        left = self._harness.executor.try_adopt_task_instances(orphans) if orphans else []
        for orphan in left:
            self._database.commit(self._names_by_key[orphan.key], state="scheduled", request=None)

    def queue(self) -> None:
        """As the scheduler does: the state is committed first, with the id where Airflow assigns one."""
        for name, entry in self._database.read_rows().items():
            if entry["state"] == "scheduled":
                item = self._build_workload(name, entry)
                assigned = item.callback.id if is_callback(name) else getattr(item.ti, "external_executor_id", None)
                self._database.commit(name, state="queued", request=assigned)
                self._harness.queue(item)

    def revoke(self) -> None:
        """They are to be queued anew."""
        for name, entry in self._database.read_rows().items():
            self._database.commit(name, state="scheduled", request=None)
            self._harness.executor.revoke_task(ti=FakeTaskInstance(self._build_workload(name, entry), entry["request"]))

    def heartbeat(self) -> None:
        """One heartbeat; what the executor says is committed."""
        self._harness.heartbeat()
        for key, (state, info) in self._harness.collect_events().items():
            known = {"request": info} if state == "queued" else {}
            self._database.commit(self._names_by_key[key], state=state, **known)

    @property
    def is_idle(self) -> bool:
        """Every end is in the book, and all that is to be said to the ledger is said."""
        returns = self._harness.executor._result_processor
        ended = all(entry["state"] in {"success", "failed"} for entry in self._database.read_rows().values())
        return ended and not returns and not returns._to_confirm and not returns._to_stop

    def close(self) -> None:
        self._harness.close()

    def _build_workload(self, name: str, row: dict[str, Any]) -> Any:
        item = _build_callback(row["id"]) if is_callback(name) else make_task_workload(name, id=uuid.UUID(row["id"]))
        self._names_by_key[self._harness.executor.workload_key(item)] = name
        return item

    def _find_unprocessed(self, flights: Sequence[TrackedWorkload]) -> set[str]:
        entries = self._database.read_rows()
        return {flight.request_id for flight in flights if entries[self._names_by_key[flight.key]]["state"] == "queued"}


def _build_callback(callback_id: str) -> Any:
    from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod

    return workloads.ExecuteCallback(
        callback=CallbackDTO(id=callback_id, fetch_method=CallbackFetchMethod.IMPORT_PATH, data={"path": "a.b"}),
        dag_rel_path="dag.py",
        token=make_token(),
        bundle_info=workloads.BundleInfo(name="dags"),
        log_path="a.log",
    )


def main(database_path: str, job_id: str, action: str, *names: str) -> None:
    """To the end of all that the book has."""
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
