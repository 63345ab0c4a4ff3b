"""Tasks that block until a test releases them, tasks that fail, and many light tasks.

The file `RUN_ID.released` beside this one releases the tasks of a run: it holds the numbers of those that may
finish.
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
#: A task that is never released fails after this time.
RELEASE_TIMEOUT_SECONDS = 300


def record_execution(line: str) -> None:
    """Append a line to `executions.txt`: the code of this task has run (again)."""
    with (HERE / "executions.txt").open("a") as file:
        file.write(f"{line}\n")


def wait_for_release(run_id: str, number: int) -> None:
    """Block until the run's file says that the task with this number may finish."""
    released = HERE / f"{run_id}.released"
    deadline = time.monotonic() + RELEASE_TIMEOUT_SECONDS
    while not released.exists() or str(number) not in released.read_text().split():
        if time.monotonic() > deadline:
            raise TimeoutError(f"task {number} of {run_id} was not released within {RELEASE_TIMEOUT_SECONDS} s")
        time.sleep(0.1)


@dag(schedule=None, max_active_tasks=64)
def blocking():
    """Twenty tasks that finish when they are released."""

    @task(retries=0)
    def block(number: int) -> int:
        run_id = get_current_context()["ti"].run_id
        record_execution(f"{run_id} {number}")
        print(f"a container's line, number {number}", flush=True)
        wait_for_release(run_id, number)
        return number

    block.expand(number=list(range(20)))


@dag(schedule=None)
def logging():
    """A task that prints a line and blocks."""

    @task(retries=0)
    def print_line() -> None:
        print("a container's line", flush=True)
        wait_for_release(get_current_context()["ti"].run_id, 0)

    print_line()


@dag(schedule=None)
def failing():
    """A task whose container is killed, and a task that ecs-queue rejects."""

    @task(retries=0)
    def killed():
        os.kill(os.getppid(), signal.SIGKILL)  # Airflow's supervisor: the container's first process
        time.sleep(RELEASE_TIMEOUT_SECONDS)

    @task(retries=0, executor_config={"memory": "much"})
    def rejected():
        record_execution("rejected")

    killed()
    rejected()


def build_light_path() -> str:
    """Return the PATH of a light task's container."""
    return f"{HERE / 'light_image'}{os.pathsep}{Path(sys.executable).parent}"


@task(retries=0, executor_config={"environment": [{"name": "PATH", "value": build_light_path()}]})
def run_light_task(number: int) -> None:
    """The image has a small program in place of Airflow, which sends the API server what Airflow would send."""
    raise AssertionError("the small program runs instead")


@dag(schedule=None, max_active_tasks=128)
def hundred_tasks():
    """A hundred light tasks."""
    run_light_task.expand(number=list(range(100)))


@dag(schedule=None)
def ten_tasks():
    """Ten light tasks."""
    run_light_task.expand(number=list(range(10)))


blocking()
logging()
failing()
hundred_tasks()
ten_tasks()
