"""The DAGs of `bench.airflow_dag`: for each side one of many short mapped tasks, and a second one to warm up with.

`sides.json` beside this file has the executor and the queue of each side, and the number of tasks of each of its DAGs.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
from __future__ import annotations

import json
import time
from pathlib import Path

from airflow.sdk import dag, task

AT_A_TIME = 10
TASK_SECONDS = 0.05


def make_dag(dag_id: str, executor: str, queue: str, tasks: int):
    @dag(dag_id, schedule=None, max_active_tasks=AT_A_TIME)
    def short_tasks():
        @task(executor=executor, queue=queue, retries=0)
        def work(number: int) -> None:
            time.sleep(TASK_SECONDS)

        work.expand(number=list(range(tasks)))

    return short_tasks()


for side in json.loads(Path(__file__).with_name("sides.json").read_text()):
    for dag_id, tasks in side["dags"].items():
        make_dag(dag_id, side["executor"], side["queue"], tasks)
