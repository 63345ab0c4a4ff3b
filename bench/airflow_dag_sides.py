"""The runs of `bench.airflow_dag`, in a process with Airflow. It prints each run as a line of JSON."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import msgspec

from bench.process_cpu import CpuBook
from ecs_queue.airflow.local import EXECUTOR, LocalAirflow
from ecs_queue.config import load_config
from ecs_queue.ledger import open_ledger
from ecs_queue.local.redis_server import RedisServer

AT_A_TIME = 10
#: What a run may take on a machine that is busy; a cold one takes three minutes on two idle cores.
_RUN_SECONDS = 400.0
_WARM_SECONDS = 600
_ROUNDS = 3
#: What command lines contain, in this order: a worker of LocalExecutor is a child of the scheduler.
_PROCESS_KINDS = {
    "LocalExecutor": "tasks",
    "scheduler": "scheduler",
    "api-server": "API server",
    "api_server": "API server",
    "dag-processor": "DAG processor",
    "triggerer": "triggerer",
    "ecs_queue worker": "ecs-queue worker",
    "celery": "tasks",
    "runner": "tasks",
    "redis": "Redis",
    "valkey": "Redis",
}
PRELOAD = "airflow.sdk.execution_time.execute_workload, ecs_queue.airflow.preload"


class Side(NamedTuple):
    """An executor, and the queue that its tasks get."""

    name: str
    label: str
    executor: str
    queue: str = "default"


PRELOADED = Side("preloaded", "warm, preloaded", "EcsQueueExecutor", "preloaded")
WARM = Side("warm", "warm", "EcsQueueExecutor", "warm")
COLD = Side("cold", "cold", "EcsQueueExecutor", "cold")
CELERY = Side("celery", "CeleryExecutor", "CeleryExecutor")
LOCAL = Side("local", "LocalExecutor", "LocalExecutor")
SIDES = (PRELOADED, WARM, COLD, CELERY, LOCAL)
_QUEUE_SIDES = (PRELOADED, WARM, COLD)
#: Ours is compared with these again and again: the load of a machine changes.
_REPEATED = (PRELOADED, CELERY, LOCAL)
_TIME_COLUMNS = ("scheduled_dttm", "queued_dttm", "start_date", "end_date")


class TaskTimes(msgspec.Struct, frozen=True):
    """When a task got where, in seconds since the epoch. The last three are None where there is no request."""

    scheduled: float
    queued: float
    started: float
    ended: float
    submitted: float | None = None
    launched: float | None = None
    finished: float | None = None


class Run(msgspec.Struct, frozen=True):
    """One run of a side's DAG.

    Attributes:
        side: Its name.
        wall: Seconds from the start of the DAG run to its end, by Airflow.
        tasks: Its tasks.
        run_task_calls: RunTask calls meanwhile.
        cpu: Seconds of processor time meanwhile, by the kind of process.
    """

    side: str
    wall: float
    tasks: list[TaskTimes]
    run_task_calls: int
    cpu: dict[str, float]


def main() -> None:
    """Run all sides."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--provision-seconds", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, required=True, help="begin no further round after this time")
    given = parser.parse_args()
    began = time.monotonic()
    with running_airflow(given.tasks, given.provision_seconds) as airflow:
        for side in (PRELOADED, CELERY, LOCAL):
            _run(airflow, side, _warm_up_dag(side))
        rounds = 0
        while rounds < 1 or (rounds < _ROUNDS and time.monotonic() - began < given.seconds / 3):
            for side in _REPEATED:
                _show(_run(airflow, side, side.name))
            rounds += 1
        _run(airflow, WARM, _warm_up_dag(WARM))
        for side in (WARM, COLD):
            _show(_run(airflow, side, side.name))


def _show(run: Run) -> None:
    print(msgspec.json.encode(run).decode(), flush=True)


def _warm_up_dag(side: Side) -> str:
    return f"{side.name}_warm_up"


@contextmanager
def running_airflow(tasks: int, provision_seconds: float) -> Iterator[LocalAirflow]:
    """Yield an Airflow with all executors, a worker of ecs-queue and one of Celery."""
    with tempfile.TemporaryDirectory() as directory, RedisServer() as celery_server:
        dags = Path(shutil.copytree(Path(__file__).parent / "dags", Path(directory, "dags")))
        (dags / "sides.json").write_text(_describe_sides(tasks))
        settings = {**_queue_settings(), **_celery_settings(celery_server.url)}
        home = Path(directory, "home")
        with LocalAirflow(home, dags, workers=0, settings=settings, provision_seconds=provision_seconds) as airflow:
            queues = ",".join(side.queue for side in _QUEUE_SIDES)
            airflow.spawn("worker", "-m", "ecs_queue", "worker", "--queues", queues)
            options = ("--concurrency", str(AT_A_TIME), "--skip-serve-logs", "--without-gossip", "--without-mingle")
            airflow.spawn("celery", "-m", "airflow", "celery", "worker", *options)
            airflow.wait_for_dags()
            yield airflow


def _describe_sides(tasks: int) -> str:
    """What the DAG file reads."""
    return json.dumps([{**side._asdict(), "dags": {side.name: tasks, _warm_up_dag(side): tasks}} for side in SIDES])


def _queue_settings() -> dict[str, str]:
    def key(side: Side, name: str) -> str:
        return f"AIRFLOW__AWS_ECS_EXECUTOR_{side.queue.upper()}__{name.upper()}"

    warm = {key(side, "warm_seconds"): str(_WARM_SECONDS) for side in (PRELOADED, WARM)}
    return {
        "AIRFLOW__CORE__EXECUTOR": f"{EXECUTOR},CeleryExecutor,LocalExecutor",
        "AIRFLOW__ECS_QUEUE__MAX_IN_FLIGHT": "0",  # the DAG's own limit counts, as for the other executors
        **warm,
        key(COLD, "warm_seconds"): "0",
        key(PRELOADED, "runner_preload"): PRELOAD,
    }


def _celery_settings(url: str) -> dict[str, str]:
    server = url.removesuffix("/0")
    return {
        "AIRFLOW__CELERY__BROKER_URL": f"{server}/0",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"{server}/1",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(AT_A_TIME),
    }


def _run(airflow: LocalAirflow, side: Side, dag_id: str) -> Run:
    """Run a DAG of a side once."""
    run_id = f"{dag_id}-{time.time():.0f}"
    book = CpuBook(_PROCESS_KINDS, rest="containers")
    calls = airflow.ecs.stats()["calls"].get("RunTask", 0)
    began = time.monotonic()
    airflow.trigger_dag(dag_id, run_id)
    query = "select state, start_date, end_date from dag_run where run_id = :run_id"
    airflow.wait_for(
        lambda: airflow.fetch_rows(query, run_id=run_id)[0]["state"] in ("success", "failed"), _RUN_SECONDS, run_id
    )
    cpu = book.read()
    (row,) = airflow.fetch_rows(query, run_id=run_id)
    if row["state"] != "success":
        raise RuntimeError(f"the run {run_id} ended as {row['state']}: see {airflow.directory}")
    wall = _seconds(row["end_date"]) - _seconds(row["start_date"])
    print(f"{dag_id}: {wall:.1f} s ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    calls = airflow.ecs.stats()["calls"].get("RunTask", 0) - calls
    return Run(side.name, wall, _read_tasks(airflow, run_id, has_requests=side in _QUEUE_SIDES), calls, cpu)


def _read_tasks(airflow: LocalAirflow, run_id: str, *, has_requests: bool) -> list[TaskTimes]:
    rows = airflow.fetch_rows("select * from task_instance where run_id = :run_id", run_id=run_id)
    times = [TaskTimes(*(_seconds(row[name]) for name in _TIME_COLUMNS)) for row in rows]
    if not has_requests:
        return times
    with closing(open_ledger(load_config(environ=airflow.environ))) as ledger:
        ids = [str(UUID(str(row["external_executor_id"]))) for row in rows]
        airflow.wait_for(lambda: all(one and one.is_terminal for one in ledger.get(ids)), 60, "the end of the requests")
        records = ledger.get(ids)
    return [
        msgspec.structs.replace(
            task, submitted=record.created_at, launched=record.launched_at, finished=record.finished_at
        )
        for task, record in zip(times, records, strict=True)
        if record is not None
    ]


def _seconds(moment: object) -> float:
    """SQLite returns times as text in UTC."""
    found = datetime.fromisoformat(str(moment))
    return found.replace(tzinfo=found.tzinfo or UTC).timestamp()


if __name__ == "__main__":
    main()
