"""Questions that the system tests ask of a whole Airflow."""

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

#: For one step on a machine that does ten other things. Seconds.
TIMEOUT_SECONDS = 240.0
_TEST_DAGS = Path(__file__).parent / "dags"


def copy_dags(directory: Path) -> Path:
    """The examples and the tests' own, where the tests may write beside them."""
    shutil.copytree(EXAMPLE_DAGS, directory)
    shutil.copytree(_TEST_DAGS, directory, dirs_exist_ok=True)
    return directory


def list_run_tasks(airflow: LocalAirflow, run_id: str) -> list[Row]:
    """The task instances of a run; not that which a mapping starts from."""
    return airflow.fetch_rows(
        "select task_id, map_index, state, try_number, external_executor_id, queued_by_job_id from task_instance "
        "where run_id = :run_id order by task_id, map_index",
        run_id=run_id,
    )


def count_states(airflow: LocalAirflow, run_id: str) -> Counter[str]:
    """How many of a run's tasks are in which state."""
    return Counter(str(row["state"]) for row in list_run_tasks(airflow, run_id))


def get_records(airflow: LocalAirflow, ids: Iterable[object]) -> list[Record]:
    """The requests with these ids, which Airflow keeps as text or as UUIDs; all of them have to be there."""
    with closing(open_ledger(load_config(environ=airflow.environ))) as ledger:
        found = ledger.get([str(uuid.UUID(str(one))) for one in ids])
    assert None not in found
    return [record for record in found if record is not None]


def count_executions(airflow: LocalAirflow, run_id: str) -> Counter[int]:
    """How often the code of each mapped task of a run has run."""
    path = airflow.dags / "executions.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(int(line.split()[1]) for line in lines if line.startswith(f"{run_id} "))


def release_tasks(airflow: LocalAirflow, run_id: str, count: int) -> None:
    """Let the first so many tasks of `blocking` end. In one step, as its tasks read it any time."""
    fresh = airflow.dags / f"{run_id}.released.new"
    fresh.write_text(str(count))
    fresh.replace(airflow.dags / f"{run_id}.released")
