"""A complete Airflow with two executors, one under an alias, on a local ECS that shows STOPPED late."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow import __version__ as airflow_version

from ecs_queue.airflow.local import EXECUTOR, LocalAirflow, Row
from ecs_queue.protocol.states import State
from tests.airflow import system_queries
from tests.airflow.system_queries import TIMEOUT_SECONDS
from tests.servers import require_redis_binary

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(600)]

#: Longer than the sensor's poke_interval.
SHUTDOWN_DELAY_SECONDS = 10.0
SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": f"LocalExecutor,ecsq:{EXECUTOR}",
    # The profile of the queue `High-Mem.v2`, which exists by variables only.
    "AIRFLOW__AWS_ECS_EXECUTOR_HIGH_MEM_V2__PLATFORM_VERSION": "1.4.0",
}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """The Airflow with a run of each DAG in progress, and a worker for the queue `High-Mem.v2`."""
    require_redis_binary()
    directory = tmp_path_factory.mktemp("airflow")
    dags = Path(shutil.copytree(Path(__file__).parent / "two_executor_dags", directory / "dags"))
    home = directory / "home"
    with LocalAirflow(home, dags, workers=1, settings=SETTINGS, shutdown_delay=SHUTDOWN_DELAY_SECONDS) as started:
        started.spawn("worker-mem", "-m", "ecs_queue", "worker", "--queues", "High-Mem.v2")
        started.run_airflow_command("pools", "set", "one", "1", "a single slot")
        started.wait_for_dags()
        started.trigger_dag("full_pool", "full_pool")
        started.trigger_dag("named_executors", "named_executors")
        yield started


def wait_for_success(airflow: LocalAirflow, run_id: str) -> list[Row]:
    """Wait until the run has ended; return its task instances, which all succeeded at the first try."""
    airflow.wait_for(
        lambda: bool(
            airflow.fetch_rows("select 1 from dag_run where run_id = :run and end_date is not null", run=run_id)
        ),
        TIMEOUT_SECONDS,
        f"the end of {run_id}",
    )
    rows = system_queries.list_run_tasks(airflow, run_id)
    assert {(row["state"], row["try_number"]) for row in rows} == {("success", 1)}
    return rows


def test_a_sensor_whose_result_comes_while_it_waits_for_a_full_pool_succeeds(airflow: LocalAirflow) -> None:
    query = "select 1 from log where task_id = 'second_poke' and event = 'ecs task finished'"
    airflow.wait_for(lambda: bool(airflow.fetch_rows(query)), TIMEOUT_SECONDS, "the result of the first poke")
    tasks = {row["task_id"]: row["state"] for row in system_queries.list_run_tasks(airflow, "full_pool")}
    assert tasks["second_poke"] == "scheduled"  # the scheduler has taken no slot of the pool for it
    system_queries.release_tasks(airflow, "full_pool", 1)
    wait_for_success(airflow, "full_pool")
    assert (airflow.dags / "pokes.txt").read_text().splitlines() == ["poke", "poke"]


def test_a_dag_may_name_its_executor_by_alias_class_and_path(airflow: LocalAirflow) -> None:
    rows = {row["task_id"]: row for row in wait_for_success(airflow, "named_executors")}
    sent = {name: row["external_executor_id"] for name, row in rows.items() if name != "by_default"}
    records = dict(zip(sent, system_queries.get_records(airflow, sent.values()), strict=True))
    by_class = {} if airflow_version.startswith("3.1.") else {"by_class": "default"}
    assert {name: record.queue for name, record in records.items()} == {
        "by_alias": "default",
        "by_path": "default",
        "on_its_queue": "high_mem_v2",
    } | by_class
    airflow.wait_for(
        lambda: all(record.state is State.SUCCESS for record in system_queries.get_records(airflow, sent.values())),
        TIMEOUT_SECONDS,
        "the end of the containers",
    )
