"""Questions that the system tests ask of a whole Airflow."""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from ecs_queue.airflow.demo import EXAMPLES
from ecs_queue.airflow.local import LocalAirflow, Row
from ecs_queue.config import load_config
from ecs_queue.core.record import Record
from ecs_queue.ledger import open_ledger

#: For one step on a machine that does ten other things. Seconds.
PATIENCE = 240.0
_OWN = Path(__file__).parent / "dags"


def copy_dags(directory: Path) -> Path:
    """The examples and the tests' own, where the tests may write beside them."""
    shutil.copytree(EXAMPLES, directory)
    shutil.copytree(_OWN, directory, dirs_exist_ok=True)
    return directory


def tasks_of(airflow: LocalAirflow, run_id: str) -> list[Row]:
    """The task instances of a run; not that which a mapping starts from."""
    return airflow.rows(
        "select task_id, map_index, state, try_number, external_executor_id, queued_by_job_id from task_instance "
        "where run_id = :run_id order by task_id, map_index",
        run_id=run_id,
    )


def states_of(airflow: LocalAirflow, run_id: str) -> Counter[str]:
    """How many of a run's tasks are in which state."""
    return Counter(str(row["state"]) for row in tasks_of(airflow, run_id))


def records_of(airflow: LocalAirflow, ids: Iterable[object]) -> list[Record]:
    """The requests with these ids, which Airflow keeps as text or as UUIDs; all of them have to be there."""
    with closing(open_ledger(load_config(environ=airflow.environ))) as ledger:
        found = ledger.get([str(uuid.UUID(str(one))) for one in ids])
    assert None not in found
    return [record for record in found if record is not None]


def ran(airflow: LocalAirflow, run_id: str) -> Counter[int]:
    """How often the code of each mapped task of a run has run."""
    path = airflow.dags / "ran.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(int(line.split()[1]) for line in lines if line.startswith(f"{run_id} "))


def open_gate(airflow: LocalAirflow, run_id: str, passing: int) -> None:
    """Let the first so many tasks of `gated` end. In one step, as its tasks read it any time."""
    fresh = airflow.dags / f"{run_id}.gate.new"
    fresh.write_text(str(passing))
    fresh.replace(airflow.dags / f"{run_id}.gate")
