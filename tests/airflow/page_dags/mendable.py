"""A task whose container is killed until the file `mended` stands beside this one."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from airflow.sdk import dag, task


@dag(schedule=None)
def mendable():
    """One task."""

    @task(retries=0)
    def load() -> None:
        if Path(__file__).with_name("mended").exists():
            return
        print("reading 1,200 orders", flush=True)
        os.kill(os.getppid(), signal.SIGKILL)  # Airflow's supervisor: the container's first process
        time.sleep(60)

    load()


mendable()
