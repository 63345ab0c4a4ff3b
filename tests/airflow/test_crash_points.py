"""At every named step of the executor a real scheduler process dies; the next one goes on, and nothing is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from airflow.executors import workloads

from ecs_queue.local.ecs import LocalEcsOptions
from ecs_queue.local.redis_server import RedisServer
from tests.airflow.scenarios import AIRFLOW_PATIENCE, CALLBACK, NAMES, SCENARIOS, Airflow, called_back
from tests.crash.bench import MAX_ATTEMPTS, PATIENCE, Bench
from tests.evidence import all_tasks, violations
from tests.system.processes import wait_for

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("point", SCENARIOS)
def test_a_scheduler_that_dies_here_loses_and_doubles_nothing(
    point: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    play = SCENARIOS[point]
    if play is called_back and not hasattr(workloads, "ExecuteCallback"):
        pytest.skip("this Airflow sends no callbacks to executors")
    with Bench(redis_server.url, tmp_path, LocalEcsOptions(), {}) as bench:
        airflow = Airflow(bench)
        play(airflow, point)
        unknown = [e for e in airflow.book.entries().values() if e["state"] == "queued" and e["request"] is None]
        bench.worker()
        bench.ends_well(airflow.scheduler(), AIRFLOW_PATIENCE)

        ends = Counter(line["name"] for line in airflow.book.lines() if line.get("state") == "success")
        assert ends == Counter(CALLBACK if play is called_back else NAMES)
        wait_for(lambda: all(record.ended for record in airflow.records()), PATIENCE, "every request ends")
        tasks = all_tasks(bench.endpoint_url)
        assert violations(bench.namespace, airflow.records(), tasks, MAX_ATTEMPTS) == []
        # Whose request the database did not know is queued anew; Airflow's API server lets only one of the two start.
        assert len(tasks) == len(ends) + len(unknown)
        assert bench.queue.ledger.undelivered(airflow.owner(airflow.jobs), 10) == []
