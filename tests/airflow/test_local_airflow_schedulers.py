"""Schedulers that die, lose Redis, or run at the same time, in a complete Airflow on PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecs_queue.airflow.local import LocalAirflow, Row
from ecs_queue.protocol.states import State
from tests.airflow import system_queries
from tests.airflow.measured_executor import HEARTBEAT_LOG_VARIABLE
from tests.airflow.postgres import PostgresServer
from tests.airflow.system_queries import TIMEOUT_SECONDS
from tests.servers import require_redis_binary

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
#: What Airflow's scheduler logs when its executor and the database disagree.
EXECUTOR_MISMATCH = re.compile(r"reported that the task instance|TI try_number mismatch|an unexpected error|Traceback")


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """An Airflow with one scheduler, and at most ten containers at once."""
    require_redis_binary()
    directory = tmp_path_factory.mktemp("airflow")
    settings = {
        "AIRFLOW__CORE__EXECUTOR": "tests.airflow.measured_executor.TimedExecutor",
        "AIRFLOW__CORE__PARALLELISM": "64",  # of each scheduler: a hundred tasks need both
        "AIRFLOW__ECS_QUEUE__MAX_IN_FLIGHT": "10",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "PYTHONPATH": str(ROOT),
        HEARTBEAT_LOG_VARIABLE: str(directory / "heartbeats"),
    }
    with PostgresServer() as database:
        dags = system_queries.copy_dags(directory / "dags")
        with LocalAirflow(directory / "home", dags, database=database.url, settings=settings) as started:
            started.wait_for_dags()
            yield started


def read_heartbeats(airflow: LocalAirflow, since: float) -> list[Row]:
    """Return the logged heartbeats since a time (seconds since the epoch)."""
    lines = Path(airflow.environ[HEARTBEAT_LOG_VARIABLE]).read_text().splitlines()
    return [heartbeat for heartbeat in map(json.loads, lines) if heartbeat["at"] >= since]


def list_live_jobs(airflow: LocalAirflow) -> set[int]:
    """Return the schedulers that are running according to the database."""
    rows = airflow.fetch_rows("select id from job where job_type = 'SchedulerJob' and state = 'running'")
    return {int(row["id"]) for row in rows}


def start_twenty(airflow: LocalAirflow, run_id: str) -> None:
    """Start a run of `blocking`; return when ten tasks run and ten are queued, until the test releases them."""
    airflow.trigger_dag("blocking", run_id)

    def ten_are_running() -> bool:
        is_half = system_queries.count_states(airflow, run_id) == {"running": 10, "queued": 10}
        return is_half and len(system_queries.count_executions(airflow, run_id)) == 10

    airflow.wait_for(ten_are_running, TIMEOUT_SECONDS, "ten running and ten queued tasks")


def assert_each_succeeds_once(airflow: LocalAirflow, run_id: str, count: int) -> None:
    """Each task succeeds at its first try with one launch, and its scheduler, if it still runs, confirms the result."""
    airflow.wait_for(
        lambda: system_queries.count_states(airflow, run_id) == {"success": count},
        TIMEOUT_SECONDS,
        f"the end of {run_id}",
    )
    assert system_queries.count_executions(airflow, run_id) == dict.fromkeys(range(count), 1)
    tasks = system_queries.list_run_tasks(airflow, run_id)
    assert {task["try_number"] for task in tasks} == {1}
    ids = {str(task["external_executor_id"]) for task in tasks}
    assert len(ids) == count
    live = list_live_jobs(airflow)
    wait_for_confirmation(airflow, [task for task in tasks if task["queued_by_job_id"] in live])
    records = system_queries.get_records(airflow, ids)
    assert len(records) == count
    assert {(record.state, record.launch, record.attempt) for record in records} == {(State.SUCCESS, 1, 1)}


def wait_for_confirmation(airflow: LocalAirflow, tasks: list[Row]) -> None:
    """Wait until the tasks' scheduler has confirmed their results to the ledger."""
    ids = [task["external_executor_id"] for task in tasks]

    def are_confirmed() -> bool:
        return all(record.confirmed_at for record in system_queries.get_records(airflow, ids))

    airflow.wait_for(are_confirmed, TIMEOUT_SECONDS, "the confirmation of results")


def test_the_next_scheduler_adopts_the_tasks_of_a_killed_one(airflow: LocalAirflow) -> None:
    before = airflow.ecs.stats()["tasks_created"]
    start_twenty(airflow, "killed")
    (dead,) = list_live_jobs(airflow)
    assert {task["queued_by_job_id"] for task in system_queries.list_run_tasks(airflow, "killed")} == {dead}
    airflow.kill("scheduler")
    # Three tasks end while no scheduler runs, and three of those that are queued start.
    system_queries.release_tasks(airflow, "killed", 3)
    airflow.wait_for(
        lambda: system_queries.count_states(airflow, "killed")["success"] == 3,
        TIMEOUT_SECONDS,
        "three tasks",
    )
    airflow.start_component("scheduler")

    def are_adopted() -> bool:
        unfinished = [task for task in system_queries.list_run_tasks(airflow, "killed") if task["state"] != "success"]
        return len(unfinished) == 17 and dead not in {task["queued_by_job_id"] for task in unfinished}

    airflow.wait_for(are_adopted, TIMEOUT_SECONDS, "the adoption")
    system_queries.release_tasks(airflow, "killed", 20)
    assert_each_succeeds_once(airflow, "killed", 20)
    assert airflow.ecs.stats()["tasks_created"] - before == 20


def test_a_redis_outage_of_20_seconds_delays_tasks_and_loses_nothing(airflow: LocalAirflow) -> None:
    """Redis is first frozen (it accepts connections and does not answer), then killed (connections are refused)."""
    before, since = airflow.ecs.stats()["tasks_created"], time.time()
    start_twenty(airflow, "outage")
    os.kill(airflow.redis.pid, signal.SIGSTOP)
    released = run_through_outage(airflow, "frozen", passing=5)
    os.kill(airflow.redis.pid, signal.SIGCONT)
    wait_for_confirmation(airflow, released)  # all processes continue
    airflow.redis.kill()
    run_through_outage(airflow, "dead", passing=10)
    airflow.redis.start()
    system_queries.release_tasks(airflow, "outage", 20)
    for run_id, count in (("outage", 20), ("frozen", 10), ("dead", 10)):
        assert_each_succeeds_once(airflow, run_id, count)
    assert airflow.ecs.stats()["tasks_created"] - before == 40
    heartbeats = read_heartbeats(airflow, since)
    assert not [heartbeat["raised"] for heartbeat in heartbeats if heartbeat["raised"]]
    assert max(heartbeat["seconds"] - heartbeat["waited"] for heartbeat in heartbeats) <= 1.0


def run_through_outage(airflow: LocalAirflow, run_id: str, *, passing: int) -> list[Row]:
    """Spend 20 s in which `passing` tasks may end and ten are queued, while Redis is unavailable; return the first."""
    outage_started = time.time()
    released = system_queries.release_tasks(airflow, "outage", passing)
    airflow.trigger_dag("ten_tasks", run_id)
    time.sleep(20)  # the length of the outage is what is tested
    assert system_queries.count_states(airflow, run_id) == {"queued": 10}
    assert len(read_heartbeats(airflow, outage_started)) >= 10  # scheduling continues
    return released


def test_two_schedulers_at_once_finish_each_task_once(airflow: LocalAirflow) -> None:
    before = airflow.ecs.stats()["tasks_created"]
    airflow.start_component("scheduler", "scheduler-2")
    airflow.wait_for(lambda: len(list_live_jobs(airflow)) == 2, TIMEOUT_SECONDS, "the second scheduler")
    airflow.trigger_dag("hundred_tasks", "both")
    assert_each_succeeds_once(airflow, "both", 100)
    assert airflow.ecs.stats()["tasks_created"] - before == 100
    shares = Counter(task["queued_by_job_id"] for task in system_queries.list_run_tasks(airflow, "both"))
    assert set(shares) == list_live_jobs(airflow)  # both have queued some
    unfinished = "select id from dag_run where state not in ('success', 'failed')"
    airflow.wait_for(lambda: not airflow.fetch_rows(unfinished), TIMEOUT_SECONDS, "the runs")
    for name in ("scheduler", "scheduler-2"):
        assert not EXECUTOR_MISMATCH.findall((airflow.directory / f"{name}.log").read_text())
