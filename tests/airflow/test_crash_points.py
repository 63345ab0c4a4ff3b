"""A real scheduler process dies at every named step of the executor; the next one loses and repeats nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from airflow.executors import workloads

from ecs_queue.local.ecs import LocalEcsOptions
from ecs_queue.local.redis_server import RedisServer
from tests.airflow.crash_scenarios import (
    AIRFLOW_TIMEOUT_SECONDS,
    CALLBACK_NAMES,
    SCENARIOS,
    TASK_NAMES,
    SchedulerCrashHarness,
    crash_while_adopting_callback,
)
from tests.crash.harness import MAX_ATTEMPTS, TIMEOUT_SECONDS, CrashHarness
from tests.invariants import find_violations, list_all_tasks
from tests.wait import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("point", SCENARIOS)
def test_a_scheduler_that_dies_here_loses_and_doubles_nothing(
    point: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    scenario = SCENARIOS[point]
    if scenario is crash_while_adopting_callback and not hasattr(workloads, "ExecuteCallback"):
        pytest.skip("this Airflow sends no callbacks to executors")
    with CrashHarness(redis_server.url, tmp_path, LocalEcsOptions(), {}) as crash:
        harness = SchedulerCrashHarness(crash)
        scenario(harness, point)
        rows = harness.database.read_rows().values()
        unknown = [row for row in rows if row["state"] == "queued" and row["request"] is None]
        crash.start_worker()
        crash.wait_for_success(harness.start_scheduler(), AIRFLOW_TIMEOUT_SECONDS)

        successes = Counter(line["name"] for line in harness.database.list_commits() if line.get("state") == "success")
        assert successes == Counter(CALLBACK_NAMES if scenario is crash_while_adopting_callback else TASK_NAMES)
        wait_until(
            lambda: all(record.is_terminal for record in harness.list_records()), "every request ends", TIMEOUT_SECONDS
        )
        tasks = list_all_tasks(crash.endpoint_url)
        assert find_violations(crash.namespace, harness.list_records(), tasks, MAX_ATTEMPTS) == []
        # A task whose request is not in the database is queued again; Airflow's API server lets only one of them run.
        assert len(tasks) == len(successes) + len(unknown)
        assert crash.queue.ledger.list_undelivered(harness.owner_of_job(harness.started_jobs), 10) == []
