"""A whole Airflow on this machine, with real processes all the way down to the containers."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ecs_queue.airflow.demo import EXAMPLES, await_end, demo_runs, demo_tasks
from ecs_queue.airflow.local import LocalAirflow, Row
from ecs_queue.config import load_config
from ecs_queue.core.states import State
from ecs_queue.ledger import open_ledger
from tests.services import require_redis_binary

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("airflow-system")]

_OWN = Path(__file__).parent / "dags"


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    require_redis_binary()
    directory = tmp_path_factory.mktemp("airflow")
    dags = directory / "dags"
    shutil.copytree(EXAMPLES, dags)
    shutil.copytree(_OWN, dags, dirs_exist_ok=True)
    settings = {"AIRFLOW__ECS_QUEUE__MAX_IN_FLIGHT": "10", "AIRFLOW__CORE__PARALLELISM": "64"}
    made = LocalAirflow(directory / "home", dags, settings=settings)
    made.start()
    yield made
    made.stop()


def states(airflow: LocalAirflow, run_id: str) -> Counter[str]:
    rows = airflow.rows("select state from task_instance where run_id = ? and map_index >= 0", run_id)
    return Counter(str(row["state"]) for row in rows)


def run_many(airflow: LocalAirflow, run_id: str) -> None:
    """Trigger it, and wait until ten run and ten wait for a place."""
    airflow.command("dags", "trigger", "many", "--run-id", run_id)

    def is_half_way() -> bool:
        found = states(airflow, run_id)
        return found["running"] >= 5 and found["queued"] + found["running"] + found["success"] == 20

    airflow.wait_for(is_half_way, 120, "the start of the tasks")


def running_log(airflow: LocalAirflow, run_id: str) -> str:
    """The log view of a task that runs, when it names our container's log as its source."""
    query = "select map_index from task_instance where run_id = ? and state = 'running' order by map_index"
    for row in airflow.rows(query, run_id):
        path = f"/dags/many/dagRuns/{run_id}/taskInstances/slow/logs/1?map_index={row['map_index']}"
        shown = json.dumps(airflow.api(path), ensure_ascii=False)
        if "the local ECS's" in shown:
            return shown
    return ""


def await_success_of_each_once(airflow: LocalAirflow, run_id: str) -> None:
    airflow.wait_for(lambda: sum(states(airflow, run_id)[end] for end in ("success", "failed")) == 20, 240, run_id)
    assert states(airflow, run_id) == {"success": 20}
    ran = (airflow.dags / "ran.txt").read_text().splitlines()
    assert Counter(line for line in ran if line.startswith(f"{run_id} ")) == {
        f"{run_id} {number}": 1 for number in range(20)
    }


def test_the_example_dags_end_as_they_should(airflow: LocalAirflow) -> None:
    await_end(airflow, 5, 240)
    assert {run["dag_id"]: run["state"] for run in demo_runs(airflow)} == dict.fromkeys(
        ("chain", "configured", "deferred", "mapped", "retried"), "success"
    )
    tasks = demo_tasks(airflow)
    assert len(tasks) == 26
    assert {task["task_id"]: task["try_number"] for task in tasks}["flaky"] == 2
    # Each try is one container, and the deferred task's two halves are two.
    assert len(list((airflow.directory / "tasks").glob("*.log"))) == 28


def test_the_reasons_are_in_the_event_log(airflow: LocalAirflow) -> None:
    def logged() -> list[Row]:
        return airflow.rows("select task_id, map_index, extra from log where event like 'ecs task%'")

    # The last results come when the DAG runs have ended; a container that was left for a new one has no entry.
    airflow.wait_for(lambda: len({(row["task_id"], row["map_index"]) for row in logged()}) == 26, 60, "the entries")
    assert all("arn:aws:ecs:" in row["extra"] for row in logged())


def test_the_id_of_each_task_is_that_of_its_request(airflow: LocalAirflow) -> None:
    ids = [str(task["external_executor_id"]) for task in demo_tasks(airflow) if task["dag_id"] != "many"]
    with closing(open_ledger(load_config(environ=airflow.environ))) as ledger:
        records = ledger.get(ids)
    assert [record.state for record in records if record is not None] == [State.SUCCESS] * 26


def test_a_scheduler_that_is_killed_leaves_its_tasks_to_the_next(airflow: LocalAirflow) -> None:
    run_many(airflow, "killed")
    airflow.wait_for(lambda: "a container's line" in running_log(airflow, "killed"), 60, "the log of a running task")
    airflow.kill("scheduler")
    airflow.start_component("scheduler")
    await_success_of_each_once(airflow, "killed")


def test_a_redis_that_is_gone_for_20_seconds_delays_and_loses_nothing(airflow: LocalAirflow) -> None:
    run_many(airflow, "outage")
    airflow.redis.kill()
    time.sleep(20)  # what is tested is the length of the outage
    airflow.redis.start()
    await_success_of_each_once(airflow, "outage")
    log = (airflow.directory / "scheduler.log").read_text()
    assert "an unexpected error" not in log
