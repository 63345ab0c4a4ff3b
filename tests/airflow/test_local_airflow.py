"""The example DAGs, callbacks and connection tests on a complete Airflow: all of its parts are real processes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.executors.base_executor import BaseExecutor

from ecs_queue.airflow.demo import (
    RUN_ID,
    list_dag_runs,
    list_deadline_callbacks,
    list_task_instances,
    wait_for_completion,
)
from ecs_queue.airflow.local import LocalAirflow, Row
from ecs_queue.protocol.states import State
from tests.airflow import system_queries
from tests.airflow.system_queries import TIMEOUT_SECONDS
from tests.servers import require_redis_binary

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(600)]

#: The examples and how many tasks they have. Airflow 3.1 has no callbacks on executors, and 3.2 none of DAG files:
#: there the last is missing.
TASKS_BY_EXAMPLE = {"chain": 3, "configured": 1, "deferred": 1, "mapped": 20, "retried": 1, "with_deadline": 1}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """An Airflow on SQLite, with one run of each example and of the DAG `failing` in progress."""
    require_redis_binary()
    directory = tmp_path_factory.mktemp("airflow")
    settings = {"AIRFLOW__CORE__TEST_CONNECTION": "Enabled", "AIRFLOW__ECS_QUEUE__MAX_IN_FLIGHT": "10"}
    with LocalAirflow(directory / "home", system_queries.copy_dags(directory / "dags"), settings=settings) as started:
        dag_ids = started.wait_for_dags()
        for dag_id in [dag_id for dag_id in TASKS_BY_EXAMPLE if dag_id in dag_ids]:
            started.trigger_dag(dag_id, RUN_ID)
        started.trigger_dag("failing", "failing")
        yield started


@pytest.fixture(scope="module")
def finished_airflow(airflow: LocalAirflow) -> LocalAirflow:
    """The same Airflow after all runs and their requests have ended."""
    wait_for_completion(airflow, TIMEOUT_SECONDS)
    sent = airflow.fetch_rows("select external_executor_id from task_instance where task_id <> 'rejected'")
    ids = [row["external_executor_id"] for row in sent if row["external_executor_id"] is not None]
    airflow.wait_for(
        lambda: all(r.is_terminal for r in system_queries.get_records(airflow, ids)),
        TIMEOUT_SECONDS,
        "the end of the containers",
    )
    return airflow


def list_event_log(airflow: LocalAirflow, kind: str) -> list[Row]:
    """Return the entries of one kind in the event log."""
    return airflow.fetch_rows("select task_id, map_index, extra from log where event like :kind", kind=kind)


def list_example_tasks(airflow: LocalAirflow) -> list[Row]:
    return [task for task in list_task_instances(airflow) if task["run_id"] == RUN_ID]


def test_the_example_dags_end_as_they_should(finished_airflow: LocalAirflow) -> None:
    runs = {run["dag_id"]: run["state"] for run in list_dag_runs(finished_airflow)}
    assert runs.pop("failing") == "failed"
    assert set(TASKS_BY_EXAMPLE) - set(runs) <= {"with_deadline"}
    assert set(runs.values()) == {"success"}
    tasks = list_example_tasks(finished_airflow)
    assert Counter(str(task["dag_id"]) for task in tasks) == {dag_id: TASKS_BY_EXAMPLE[dag_id] for dag_id in runs}
    assert {task["state"] for task in tasks} == {"success"}
    assert {task["task_id"]: task["try_number"] for task in tasks}["flaky"] == 2


def test_nobody_gets_a_token_without_the_password(airflow: LocalAirflow) -> None:
    for body in (None, b'{"username": "admin", "password": "admin"}'):
        request = urllib.request.Request(f"{airflow.url}/auth/token", body, {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=30)
        caught.value.close()
        assert caught.value.code in (401, 403)
    assert airflow.password_file.stat().st_mode & 0o077 == airflow.directory.stat().st_mode & 0o077 == 0


def test_no_task_runs_twice(finished_airflow: LocalAirflow) -> None:
    tasks = list_example_tasks(finished_airflow)
    # Each try has a container of its own. So have the two halves of the deferred task, each callback, and the task
    # `killed`; a connection test may be running.
    expected = len(tasks) + 1 + 1 + len(list_deadline_callbacks(finished_airflow)) + 1
    assert finished_airflow.ecs.stats()["tasks_created"] - count_connection_tests(finished_airflow) == expected
    records = system_queries.get_records(finished_airflow, [task["external_executor_id"] for task in tasks])
    assert {(record.launch, record.attempt) for record in records} == {(1, 1)}


def test_the_id_of_each_task_is_that_of_its_request(finished_airflow: LocalAirflow) -> None:
    tasks = list_example_tasks(finished_airflow)
    ids = {str(task["external_executor_id"]) for task in tasks}
    records = system_queries.get_records(finished_airflow, ids)
    assert len(records) == len(ids) == len(tasks)
    assert {record.state for record in records} == {State.SUCCESS}


def test_the_reasons_are_in_the_event_log(finished_airflow: LocalAirflow) -> None:
    tasks = list_example_tasks(finished_airflow)

    def all_entries_exist() -> bool:
        return len(
            {(row["task_id"], row["map_index"]) for row in list_event_log(finished_airflow, "ecs task finished")}
        ) >= len(tasks)

    # The last results arrive after the DAG runs have ended; a deferred task has an entry for its last container only.
    finished_airflow.wait_for(all_entries_exist, TIMEOUT_SECONDS, "the entries")
    finished = list_event_log(finished_airflow, "ecs task finished")
    assert all("arn:aws:ecs:" in row["extra"] and "exit code 0" in row["extra"] for row in finished)
    (killed,) = list_event_log(finished_airflow, "ecs task failed")
    assert killed["task_id"] == "killed"
    assert "exit code 137" in killed["extra"]
    (rejected,) = list_event_log(finished_airflow, "ecs-queue rejected%")
    assert rejected["task_id"] == "rejected"
    assert "memory" in rejected["extra"]
    assert not (finished_airflow.dags / "executions.txt").exists()  # the code of the rejected task


def test_a_callback_runs_through_the_queue(finished_airflow: LocalAirflow) -> None:
    if not finished_airflow.has_table("callback"):
        pytest.skip("this Airflow sends no callbacks to executors")
    (callback,) = list_deadline_callbacks(finished_airflow)
    assert callback["state"] == "success"
    (record,) = system_queries.get_records(finished_airflow, [callback["id"]])
    assert (record.state, record.launch, record.exit_code) == (State.SUCCESS, 1, 0)
    # 3.2 writes no log of a callback: there is the container's output.
    logs = Path("logs", "executor_callbacks") if hasattr(BaseExecutor, "run_workload") else Path("tasks")
    logs_text = [path.read_text() for path in (finished_airflow.directory / logs).rglob("*") if path.is_file()]
    assert "with_deadline has not ended in 1 s" in "".join(logs_text)


def count_connection_tests(airflow: LocalAirflow) -> int:
    """Count the requested connection tests."""
    if not airflow.has_table("connection_test_request"):
        return 0
    return len(airflow.fetch_rows("select id from connection_test_request"))


@pytest.mark.parametrize(("path", "state"), [("/", "success"), ("/not/there", "failed")])
def test_a_connection_test_runs_through_the_queue(airflow: LocalAirflow, path: str, state: str) -> None:
    if not airflow.has_table("connection_test_request"):
        pytest.skip("this Airflow sends no connection tests to executors")
    name = f"files_{state}"
    body = {"connection_id": name, "conn_type": "fs", "extra": json.dumps({"path": path})}
    token = airflow.call_api("/connections/enqueue-test", body)["token"]

    def read_status() -> Any:
        return airflow.call_api("/connections/enqueue-test", **{"Airflow-Connection-Test-Token": token})

    airflow.wait_for(lambda: read_status()["state"] in {"success", "failed"}, TIMEOUT_SECONDS, "the connection test")
    assert read_status()["state"] == state
    assert path in read_status()["result_message"]
    (row,) = airflow.fetch_rows("select id from connection_test_request where connection_id = :name", name=name)
    (record,) = system_queries.get_records(airflow, [row["id"]])
    airflow.wait_for(
        lambda: system_queries.get_records(airflow, [row["id"]])[0].is_terminal,
        TIMEOUT_SECONDS,
        "its container",
    )
    assert record.launch == 1
    assert uuid.UUID(record.id) == uuid.UUID(str(row["id"]))


def test_a_line_of_a_container_shows_in_the_log_view_while_the_task_runs(airflow: LocalAirflow) -> None:
    airflow.trigger_dag("logging", "logging")

    def is_shown() -> bool:
        if system_queries.count_states(airflow, "logging") != {"running": 1}:
            return False
        shown = json.dumps(
            airflow.call_api("/dags/logging/dagRuns/logging/taskInstances/print_line/logs/1"), ensure_ascii=False
        )
        return "the local ECS's" in shown and "a container's line" in shown

    airflow.wait_for(is_shown, TIMEOUT_SECONDS, "the line of a running task")
    system_queries.release_tasks(airflow, "logging", 1)
    airflow.wait_for(
        lambda: system_queries.count_states(airflow, "logging") == {"success": 1}, TIMEOUT_SECONDS, "the end of the run"
    )
