"""`python -m ecs_queue.airflow.demo`: runs the example DAGs on a local Airflow and prints a table of the results."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ecs_queue.airflow.local import LocalAirflow, Row
from ecs_queue.errors import EcsQueueError
from ecs_queue.local.private_files import OwnedDirectory
from ecs_queue.local.stop_signals import stop_signals

EXAMPLE_DAGS = Path(__file__).resolve().parents[2] / "examples" / "dags"
RUN_ID = "demo"
_TASK_INSTANCE_COLUMNS = (
    "dag_id",
    "run_id",
    "task_id",
    "state",
    "try_number",
    "external_executor_id",
    "start_date",
    "end_date",
)
_FINAL_STATES = {"success", "failed"}


def list_dag_runs(airflow: LocalAirflow) -> list[Row]:
    """Return dag_id, run_id and state of each DAG run."""
    return airflow.fetch_rows("select dag_id, run_id, state from dag_run order by dag_id")


def list_task_instances(airflow: LocalAirflow) -> list[Row]:
    """Return the task instances; `duration_seconds` is None for one that has not both started and ended."""
    rows = airflow.fetch_rows("select * from task_instance order by dag_id, start_date")
    return [
        {name: row[name] for name in _TASK_INSTANCE_COLUMNS}
        | {"map_index": row[_map_index_column(row)], "duration_seconds": _duration_seconds(row)}
        for row in rows
        if row.get("working_set", True)  # Airflow 3.4 keeps earlier tries in this table
    ]


def _map_index_column(row: Row) -> str:
    return "map_index" if "map_index" in row else "region_index"  # Airflow 3.4


def list_deadline_callbacks(airflow: LocalAirflow) -> list[Row]:
    """Return id, dag_id and state of the callbacks of missed deadlines; none for an Airflow without callbacks."""
    if not airflow.has_table("callback"):
        return []
    return airflow.fetch_rows(
        "select callback.id, dag_run.dag_id, callback.state from callback "
        "join deadline on deadline.callback_id = callback.id join dag_run on dag_run.id = deadline.dagrun_id "
        "where callback.type = 'executor' and deadline.missed order by dag_run.dag_id"
    )


def trigger_all_dags(airflow: LocalAirflow) -> list[str]:
    """Start a run of every DAG; return the ids of the DAGs."""
    dags = airflow.wait_for_dags()
    for dag_id in dags:
        airflow.trigger_dag(dag_id, RUN_ID)
    return dags


def wait_for_completion(airflow: LocalAirflow, timeout: float) -> None:
    """Wait until every run and every callback has ended.

    Raises:
        RetryableError: They have not ended within `timeout` seconds.
    """

    def is_done() -> bool:
        rows = list_dag_runs(airflow) + list_deadline_callbacks(airflow)
        return all(row["state"] in _FINAL_STATES for row in rows)

    airflow.wait_for(is_done, timeout, "the example DAGs")


@click.command()
@click.option("--keep", is_flag=True, help="Print the UI's address and keep Airflow running until Ctrl-C.")
@click.option("--dags", type=click.Path(path_type=Path, exists=True, file_okay=False), default=EXAMPLE_DAGS)
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Write all files there and keep them.")
@click.option("--timeout", type=float, default=300.0, show_default=True, help="Seconds for all DAGs together.")
def main(keep: bool, dags: Path, directory: Path | None, timeout: float) -> None:
    """Run each DAG of a folder once on a local Airflow with the executor, a local ECS and two workers.

    Without --dags the example DAGs are run. The exit status is 1 when a run fails.
    """
    console = Console(soft_wrap=True, markup=False, emoji=False)
    for number in stop_signals():  # a shell makes its background jobs ignore SIGINT
        signal.signal(number, signal.default_int_handler)
    with ExitStack() as stack:
        owned = OwnedDirectory.claim(directory) if directory else OwnedDirectory.make_temporary("airflow")
        stack.callback(owned.close)
        airflow = LocalAirflow(owned.path, dags)
        stack.callback(airflow.stop)
        try:
            has_succeeded = _run_dags(airflow, console, timeout)
            if keep:
                console.print(f"Airflow keeps running at {airflow.url} until Ctrl-C")
                console.print(f"the password of its user admin is in {airflow.password_file}")
                signal.pause()
        except EcsQueueError as error:
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            console.print("stopping")
            return
    raise SystemExit(0 if has_succeeded else 1)


def _run_dags(airflow: LocalAirflow, console: Console, timeout: float) -> bool:
    airflow.start(console.print)
    console.print(f"Airflow runs at {airflow.url}; all its files are in {airflow.directory}")
    started = time.monotonic()
    console.print(f"running {', '.join(trigger_all_dags(airflow))}")
    wait_for_completion(airflow, timeout)
    runs, tasks, callbacks = list_dag_runs(airflow), list_task_instances(airflow), list_deadline_callbacks(airflow)
    console.print(build_table(runs, tasks, callbacks))
    containers = airflow.ecs.stats()["tasks_created"]
    console.print(f"{containers} containers in {time.monotonic() - started:.0f} s")
    return all(row["state"] == "success" for row in runs + callbacks)


def build_table(runs: Sequence[Row], tasks: Sequence[Row], callbacks: Sequence[Row]) -> Table:
    """Return a table of the DAG runs and the callbacks, with their results."""
    table = Table("DAG", "state", "tasks", "tries", "longest task")
    for run in runs:
        own_tasks = [task for task in tasks if (task["dag_id"], task["run_id"]) == (run["dag_id"], run["run_id"])]
        succeeded = sum(task["state"] == "success" for task in own_tasks)
        longest = max((task["duration_seconds"] or 0.0 for task in own_tasks), default=0.0)
        tries = sum(task["try_number"] or 0 for task in own_tasks)
        counts = f"{succeeded}/{len(own_tasks)} succeeded"
        table.add_row(run["dag_id"], str(run["state"]), counts, str(tries), f"{longest:.1f} s")
    for callback in callbacks:
        table.add_row(f"{callback['dag_id']}: callback", str(callback["state"]), "", "", "")
    return table


def _duration_seconds(task: Row) -> float | None:
    """SQLite returns times as text, PostgreSQL as datetimes."""
    if task["start_date"] is None or task["end_date"] is None:
        return None
    start, end = (datetime.fromisoformat(str(task[name])) for name in ("start_date", "end_date"))
    return (end - start).total_seconds()


if __name__ == "__main__":
    main()
