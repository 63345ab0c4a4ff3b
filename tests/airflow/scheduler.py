"""A scheduler as far as its executor sees one: `python -m tests.airflow.scheduler BOOK JOB ACT NAME...`.

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
from ecs_queue.airflow.flights import Flight
from tests.airflow.book import Book, is_callback
from tests.airflow.stage import OrphanTask, Stage, task, token

_BEAT = 0.05


class Scheduler:
    """One scheduler job."""

    def __init__(self, book: Book, job_id: int) -> None:
        self._book = book
        executor = EcsQueueExecutor(parallelism=100)
        executor.job_id = job_id
        self._stage = Stage.of(executor)
        executor.unsettled = self._unsettled
        self._names: dict[Any, str] = {}

    def schedule(self, names: Sequence[str]) -> None:
        """They are to run, and nobody has queued them."""
        for name in names:
            if name not in self._book.entries():
                self._book.note(name, id=str(uuid.uuid4()), state="scheduled", request=None)

    def adopt(self) -> None:
        """What an earlier scheduler has queued; what the executor does not take is to be queued again."""
        orphans = []
        for name, entry in self._book.entries().items():
            if entry["state"] == "queued" and is_callback(name):
                self._book.note(name, state="scheduled")
            elif entry["state"] == "queued":
                orphans.append(OrphanTask(self._item(name, entry), entry["request"]))
        left = self._stage.executor.try_adopt_task_instances(orphans) if orphans else []
        for orphan in left:
            self._book.note(self._names[orphan.key], state="scheduled", request=None)

    def queue(self) -> None:
        """As the scheduler does: the state is committed first, with the id where Airflow assigns one."""
        for name, entry in self._book.entries().items():
            if entry["state"] == "scheduled":
                item = self._item(name, entry)
                assigned = item.callback.id if is_callback(name) else getattr(item.ti, "external_executor_id", None)
                self._book.note(name, state="queued", request=assigned)
                self._stage.queue(item)

    def revoke(self) -> None:
        """They are to be queued anew."""
        for name, entry in self._book.entries().items():
            self._book.note(name, state="scheduled", request=None)
            self._stage.executor.revoke_task(ti=OrphanTask(self._item(name, entry), entry["request"]))

    def beat(self) -> None:
        """One heartbeat; what the executor says is committed."""
        self._stage.beat()
        for key, (state, info) in self._stage.events().items():
            known = {"request": info} if state == "queued" else {}
            self._book.note(self._names[key], state=state, **known)

    @property
    def is_idle(self) -> bool:
        """Every end is in the book, and all that is to be said to the ledger is said."""
        returns = self._stage.executor._returns
        ended = all(entry["state"] in {"success", "failed"} for entry in self._book.entries().values())
        return ended and not returns and not returns._to_confirm and not returns._to_stop

    def close(self) -> None:
        self._stage.close()

    def _item(self, name: str, entry: dict[str, Any]) -> Any:
        item = _callback(entry["id"]) if is_callback(name) else task(name, id=uuid.UUID(entry["id"]))
        self._names[self._stage.executor.key_of(item)] = name
        return item

    def _unsettled(self, flights: Sequence[Flight]) -> set[str]:
        entries = self._book.entries()
        return {flight.id for flight in flights if entries[self._names[flight.key]]["state"] == "queued"}


def _callback(callback_id: str) -> Any:
    from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod

    return workloads.ExecuteCallback(
        callback=CallbackDTO(id=callback_id, fetch_method=CallbackFetchMethod.IMPORT_PATH, data={"path": "a.b"}),
        dag_rel_path="dag.py",
        token=token(),
        bundle_info=workloads.BundleInfo(name="dags"),
        log_path="a.log",
    )


def main(book: str, job_id: str, act: str, *names: str) -> None:
    """To the end of all that the book has."""
    scheduler = Scheduler(Book(Path(book)), int(job_id))
    scheduler.adopt()
    scheduler.schedule(names)
    if act == "revoke":
        scheduler.queue()
        scheduler.beat()
        scheduler.revoke()
    while not scheduler.is_idle:
        scheduler.queue()
        scheduler.beat()
        time.sleep(_BEAT)
    scheduler.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
