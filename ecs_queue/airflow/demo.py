"""`python -m ecs_queue.airflow.demo`: the example DAGs on a whole local Airflow, to their end, and a table."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ecs_queue.airflow.local import LocalAirflow, Row
from ecs_queue.errors import EcsQueueError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "dags"
_ENDED = {"success", "failed"}


def demo_runs(airflow: LocalAirflow) -> list[Row]:
    """dag_id and state of each DAG run."""
    return airflow.rows("select dag_id, run_id, state from dag_run order by dag_id")


def demo_tasks(airflow: LocalAirflow) -> list[Row]:
    """The task instances as they are now."""
    return airflow.rows(
        "select dag_id, task_id, map_index, state, try_number, external_executor_id, "
        "round((julianday(end_date) - julianday(start_date)) * 86400, 1) as seconds "
        "from task_instance order by dag_id, start_date, map_index"
    )


def await_end(airflow: LocalAirflow, dags: int, seconds: float) -> None:
    """Until so many DAGs have each ended a run. RetryableError when they have not in so many seconds."""

    def is_done() -> bool:
        runs = demo_runs(airflow)
        return len({run["dag_id"] for run in runs}) >= dags and all(run["state"] in _ENDED for run in runs)

    airflow.wait_for(is_done, seconds, "the example DAGs")


@click.command()
@click.option("--keep", is_flag=True, help="Leave it up, with the UI's address, until Ctrl-C.")
@click.option("--dags", type=click.Path(path_type=Path, exists=True), default=EXAMPLES, help="Other DAGs.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Keep everything it writes there.")
@click.option("--timeout", type=float, default=300.0, show_default=True, help="Seconds.")
def main(keep: bool, dags: Path, directory: Path | None, timeout: float) -> None:
    """Run the example DAGs on a local Airflow with the executor, a local ECS and two workers."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="ecs-queue-airflow-") as temporary:
        airflow = LocalAirflow(directory or Path(temporary), dags)
        try:
            airflow.start(console.print)
            console.print(f"Airflow    {airflow.url}")
            began = time.monotonic()
            await_end(airflow, _count_dags(dags), timeout)
            show(console, demo_runs(airflow), demo_tasks(airflow), time.monotonic() - began)
            while keep:
                time.sleep(1)
        except EcsQueueError as error:
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            console.print("stopping")
        finally:
            airflow.stop()


def show(console: Console, runs: Sequence[Row], tasks: Sequence[Row], seconds: float) -> None:
    """The table of runs."""
    table = Table("DAG", "run", "tasks", "tries", "longest task", title=f"{len(tasks)} tasks in {seconds:.0f} s")
    for run in runs:
        own = [task for task in tasks if task["dag_id"] == run["dag_id"]]
        ended = sum(task["state"] == "success" for task in own)
        longest = max((task["seconds"] or 0.0 for task in own), default=0.0)
        tries = sum(task["try_number"] or 0 for task in own)
        table.add_row(run["dag_id"], str(run["state"]), f"{ended}/{len(own)} succeeded", str(tries), f"{longest:.1f} s")
    console.print(table)


def _count_dags(folder: Path) -> int:
    return sum(file.read_text().count("@dag(") for file in folder.glob("*.py"))


if __name__ == "__main__":
    main()
