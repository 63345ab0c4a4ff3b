"""A complete Airflow whose tasks run in a warm pool, as forks of an interpreter that has Airflow already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ecs_queue.airflow.local import LocalAirflow
from ecs_queue.protocol.states import State
from tests.airflow import system_queries
from tests.airflow.system_queries import TIMEOUT_SECONDS
from tests.servers import require_redis_binary

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(600)]

RUNNERS = 3
SETTINGS = {
    "AIRFLOW__ECS_QUEUE__MAX_IN_FLIGHT": str(RUNNERS),
    "AIRFLOW__AWS_ECS_EXECUTOR__WARM_SECONDS": "300",
    "AIRFLOW__AWS_ECS_EXECUTOR__RUNNER_PRELOAD": (
        "airflow.sdk.execution_time.execute_workload, ecs_queue.airflow.preload"
    ),
}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """The Airflow after a run of the DAG `warm`."""
    require_redis_binary()
    directory = tmp_path_factory.mktemp("airflow")
    dags = Path(shutil.copytree(Path(__file__).parent / "warm_dags", directory / "dags"))
    with LocalAirflow(directory / "home", dags, workers=1, settings=SETTINGS) as started:
        started.wait_for_dags()
        started.trigger_dag("warm", "first")
        started.wait_for(lambda: read_run_state(started, "first") in ("success", "failed"), TIMEOUT_SECONDS, "the run")
        yield started


def read_run_state(airflow: LocalAirflow, run_id: str) -> str:
    """Return the state of a DAG run."""
    (row,) = airflow.fetch_rows("select state from dag_run where run_id = :run_id", run_id=run_id)
    return str(row["state"])


def read_seen(airflow: LocalAirflow) -> list[dict[str, Any]]:
    """Return what the tasks have seen."""
    path = airflow.dags / "seen.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_mapped_failing_and_retried_tasks_end_as_they_should(airflow: LocalAirflow) -> None:
    tasks = system_queries.list_run_tasks(airflow, "first")
    ends = {(task["task_id"], task["map_index"]): (task["state"], task["try_number"]) for task in tasks}
    assert ends.pop(("fails", -1)) == ("failed", 1)
    assert ends.pop(("flaky", -1)) == ("success", 2)
    assert ends == {("add", -1): ("success", 1)} | {("square", number): ("success", 1) for number in range(8)}
    assert read_run_state(airflow, "first") == "failed"
    names = [(seen["task"], seen["try"]) for seen in read_seen(airflow) if seen["task"] != "linger"]
    assert sorted(names) == sorted(
        [(f"square {number}", 1) for number in range(8)] + [("sum 140", 1), ("fails", 1), ("flaky", 1), ("flaky", 2)]
    )


def test_all_of_them_are_forks_in_few_containers(airflow: LocalAirflow) -> None:
    seen = read_seen(airflow)
    assert {(one["preloaded"], one["temporary"], one["left"]) for one in seen} == {(True, True, None)}
    assert len({one["random"] for one in seen}) == len({one["pid"] for one in seen}) == len(seen)
    assert airflow.ecs.stats()["calls"]["RunTask"] <= RUNNERS
    ids = [task["external_executor_id"] for task in system_queries.list_run_tasks(airflow, "first")]
    airflow.wait_for(
        lambda: all(record.is_terminal for record in system_queries.get_records(airflow, ids)), TIMEOUT_SECONDS, "ends"
    )
    records = system_queries.get_records(airflow, ids)
    # Airflow's program exits with 0, and has reported itself that the task has failed.
    assert {(record.state, record.launch, record.attempt) for record in records} == {(State.SUCCESS, 1, 1)}
    assert len({record.run for record in records}) <= RUNNERS
    containers = "".join(path.read_text() for path in (airflow.directory / "tasks").iterdir())
    assert "ecs-queue runner: runner_preload" not in containers


@pytest.mark.parametrize(("task_id", "map_index"), [("square", 3), ("fails", -1)])
def test_the_log_view_shows_the_log_of_one_task(airflow: LocalAirflow, task_id: str, map_index: int) -> None:
    shown = json.dumps(
        airflow.call_api(f"/dags/warm/dagRuns/first/taskInstances/{task_id}/logs/1?map_index={map_index}")
    )
    name = f"square {map_index}" if map_index >= 0 else task_id
    assert f"the line of {name}" in shown
    assert shown.count("the line of ") == 1
    assert ("it always fails" in shown) == (task_id == "fails")


def test_a_running_task_that_is_cleared_is_stopped_and_its_runner_goes_on(airflow: LocalAirflow) -> None:
    airflow.trigger_dag("stopped", "stopped")

    def tries() -> list[int]:
        return [seen["try"] for seen in read_seen(airflow) if seen["task"] == "linger"]

    airflow.wait_for(lambda: tries() == [1], TIMEOUT_SECONDS, "the task")
    calls = airflow.ecs.stats()["calls"]["RunTask"]
    body = {"dry_run": False, "dag_run_id": "stopped", "task_ids": ["linger"], "only_failed": False}
    airflow.call_api("/dags/stopped/clearTaskInstances", body)
    airflow.wait_for(lambda: tries() == [1, 2], TIMEOUT_SECONDS, "its second try")
    airflow.wait_for(lambda: read_run_state(airflow, "stopped") == "success", TIMEOUT_SECONDS, "the end of the run")
    (first, _) = [seen["pid"] for seen in read_seen(airflow) if seen["task"] == "linger"]
    assert not Path(f"/proc/{first}").exists()
    assert airflow.ecs.stats()["calls"]["RunTask"] == calls
