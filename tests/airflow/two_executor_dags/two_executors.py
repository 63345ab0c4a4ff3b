"""Tasks that name their executor in every way, one on a queue of its own, and a sensor that waits in a full pool."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
from __future__ import annotations

import time
from pathlib import Path

import airflow
from airflow.sdk import dag, get_current_context, task

HERE = Path(__file__).parent
#: The task that fills the pool fails after this time if it is never released.
RELEASE_TIMEOUT_SECONDS = 300
#: The alias, the class and the path of the second executor of `[core] executor`.
ALIAS, CLASS, PATH = "ecsq", "EcsQueueExecutor", "ecs_queue.airflow.executor.EcsQueueExecutor"


@dag(schedule=None)
def named_executors():
    """One task for each way, and one without."""

    @task
    def report() -> None:
        print("ran", flush=True)

    names = {"alias": ALIAS, "path": PATH}
    if not airflow.__version__.startswith("3.1."):  # its scheduler never finds an executor by its class
        names["class"] = CLASS
    for name, executor in names.items():
        report.override(task_id=f"by_{name}", executor=executor)()
    report.override(task_id="on_its_queue", executor=ALIAS, queue="High-Mem.v2")()
    report.override(task_id="by_default")()


@dag(schedule=None)
def full_pool():
    """A sensor whose second poke waits for the pool that another task fills."""

    @task.sensor(executor=ALIAS, pool="one", priority_weight=10, mode="reschedule", poke_interval=3, timeout=600)
    def second_poke() -> bool:
        with (HERE / "pokes.txt").open("a") as file:
            file.write("poke\n")
        return len((HERE / "pokes.txt").read_text().splitlines()) > 1

    @task(executor=ALIAS, pool="one", priority_weight=1)
    def fill_pool() -> None:
        released = HERE / f"{get_current_context()['ti'].run_id}.released"
        deadline = time.monotonic() + RELEASE_TIMEOUT_SECONDS
        while not released.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not released within {RELEASE_TIMEOUT_SECONDS} s")
            time.sleep(0.1)

    second_poke()
    fill_pool()


named_executors()
full_pool()
