"""What the system tests ask a complete Airflow."""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from ecs_queue.airflow.demo import EXAMPLE_DAGS
from ecs_queue.airflow.local import LocalAirflow, Row
from ecs_queue.config import load_config
from ecs_queue.ledger import open_ledger
from ecs_queue.protocol.record import Record

#: The longest time for one step, on a busy machine.
TIMEOUT_SECONDS = 240.0
_TEST_DAGS = Path(__file__).parent / "dags"


def copy_dags(directory: Path) -> Path:
    """Copy the example DAGs and those of the tests to a directory in which the tests may write."""
    shutil.copytree(EXAMPLE_DAGS, directory)
    shutil.copytree(_TEST_DAGS, directory, dirs_exist_ok=True)
    return directory


def list_run_tasks(airflow: LocalAirflow, run_id: str) -> list[Row]:
    """Return the task instances of a run."""
    return airflow.fetch_rows(
        "select task_id, map_index, state, try_number, external_executor_id, queued_by_job_id from task_instance "
        "where run_id = :run_id order by task_id, map_index",
        run_id=run_id,
    )


def count_states(airflow: LocalAirflow, run_id: str) -> Counter[str]:
    """Count the tasks of a run by state."""
    return Counter(str(row["state"]) for row in list_run_tasks(airflow, run_id))


def get_records(airflow: LocalAirflow, ids: Iterable[object]) -> list[Record]:
    """Return the records of these ids, which Airflow stores as text or as UUIDs. Each must exist."""
    with closing(open_ledger(load_config(environ=airflow.environ))) as ledger:
        records = ledger.get([str(uuid.UUID(str(one))) for one in ids])
    assert None not in records
    return [record for record in records if record is not None]


def count_executions(airflow: LocalAirflow, run_id: str) -> Counter[int]:
    """Count how often the code of each mapped task of a run has run."""
    path = airflow.dags / "executions.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(int(line.split()[1]) for line in lines if line.startswith(f"{run_id} "))


def release_tasks(airflow: LocalAirflow, run_id: str, count: int) -> list[Row]:
    """Let `count` tasks of a run of `blocking` finish, with those released before; return them.

    Those that run come first: which of the queued tasks get the free slots is not certain. The file is replaced
    atomically, as the tasks poll it.
    """
    file = airflow.dags / f"{run_id}.released"
    before = set(file.read_text().split()) if file.exists() else set()

    def number(task: Row) -> str:
        return str(max(0, int(task["map_index"])))  # -1: it is not mapped

    order = ("success", "running")
    tasks = list_run_tasks(airflow, run_id)
    tasks.sort(key=lambda task: (number(task) not in before, task["state"] not in order))
    new = airflow.dags / f"{run_id}.released.new"
    new.write_text(" ".join(number(task) for task in tasks[:count]))
    new.replace(file)
    return tasks[:count]
