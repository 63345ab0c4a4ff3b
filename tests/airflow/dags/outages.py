"""Twenty containers that take a while, for the tests that kill something in the middle."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"
from __future__ import annotations

import time
from pathlib import Path

from airflow.sdk import dag, get_current_context, task


@dag(schedule=None, catchup=False, max_active_tasks=32)
def many():
    @task(retries=0)
    def slow(number: int) -> int:
        ti = get_current_context()["ti"]
        log = Path(__file__).with_name("ran.txt")
        with log.open("a") as file:
            file.write(f"{ti.run_id} {ti.map_index}\n")
        print(f"a container's line, number {number}", flush=True)
        time.sleep(10)
        return number

    slow.expand(number=list(range(20)))


many()
