"""Tasks that wait at a gate, for tests that do something to a task that runs; tasks that go wrong; many that are light.

The gate of a run is the file `RUN_ID.released` beside this one: the number in it is how many may pass.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

HERE = Path(__file__).parent
#: A task that nobody lets pass fails after so long. Seconds.
PATIENCE = 300


def note(name: str) -> None:
    """One line in `ran.txt`: this task has run (again)."""
    with (HERE / "ran.txt").open("a") as file:
        file.write(f"{name}\n")


def wait_at_the_gate(run_id: str, number: int) -> None:
    gate = HERE / f"{run_id}.released"
    deadline = time.monotonic() + PATIENCE
    while not gate.exists() or int(gate.read_text() or 0) <= number:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the gate was not opened for {number}")
        time.sleep(0.1)


@dag(schedule=None, max_active_tasks=64)
def gated():
    """Twenty that pass when they are let, in order of their numbers."""

    @task(retries=0)
    def waits(number: int) -> int:
        run_id = get_current_context()["ti"].run_id
        note(f"{run_id} {number}")
        print(f"a container's line, number {number}", flush=True)
        wait_at_the_gate(run_id, number)
        return number

    waits.expand(number=list(range(20)))


@dag(schedule=None)
def spoken():
    """One that says something and goes on."""

    @task(retries=0)
    def speaks() -> None:
        print("a container's line", flush=True)
        wait_at_the_gate(get_current_context()["ti"].run_id, 0)

    speaks()


@dag(schedule=None)
def wrong():
    """One whose container is killed, one that no launcher may be asked for."""

    @task(retries=0)
    def killed():
        os.kill(os.getppid(), signal.SIGKILL)  # Airflow's supervisor: the container's first process
        time.sleep(PATIENCE)

    @task(retries=0, executor_config={"memory": "much"})
    def refused():
        note("refused")

    killed()
    refused()


def light_path() -> str:
    """Where a light task's container finds its programs."""
    return f"{HERE / 'light_image'}{os.pathsep}{Path(sys.executable).parent}"


@task(retries=0, executor_config={"environment": [{"name": "PATH", "value": light_path()}]})
def hurries(number: int) -> None:
    """Its image has a small program in Airflow's place, which tells the API server what Airflow's would."""
    raise AssertionError("the small program runs instead")


@dag(schedule=None, max_active_tasks=128)
def hundred():
    """A hundred light tasks."""
    hurries.expand(number=list(range(100)))


@dag(schedule=None)
def few():
    """Ten light tasks."""
    hurries.expand(number=list(range(10)))


gated()
spoken()
wrong()
hundred()
few()
