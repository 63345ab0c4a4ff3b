"""One Airflow executor in a separate process, measured from the scheduler's side; `bench.airflow` starts it.

It prints one JSON object: wall-clock seconds, CPU seconds of this process and of its children.
"""

from __future__ import annotations

import argparse
import base64
import json
import resource
import time
import uuid
from collections.abc import Callable
from importlib import import_module
from typing import Any

EXECUTORS = {
    "ours": "ecs_queue.airflow.executor.EcsQueueExecutor",
    "celery": "airflow.providers.celery.executors.celery_executor.CeleryExecutor",
    "ecs": "airflow.providers.amazon.aws.executors.ecs.ecs_executor.AwsEcsExecutor",
}
#: Calls of an idle `sync`, as a scheduler's loop makes them: their number, and the seconds between two.
_SYNCS, _SYNC_INTERVAL = 60, 0.25
_WARM_SYNCS = 24
#: Pause between two heartbeats with workloads, for the executor's background work. Seconds.
_HEARTBEAT_PAUSE = 1.0


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("executor", choices=EXECUTORS)
    parser.add_argument("measurement", choices=["heartbeat", "idle"])
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=1, help="heartbeats of `size` tasks each; the median counts")
    chosen = parser.parse_args()
    measure = _measure_heartbeat if chosen.measurement == "heartbeat" else _measure_idle
    print(json.dumps(measure(chosen.executor, chosen.size, chosen.rounds)), flush=True)


def _measure_heartbeat(name: str, size: int, rounds: int) -> dict[str, float]:
    executor = _start_executor(name, size * rounds + 10)
    _create_tables()
    _submit_workloads(executor, 1)  # connections, imports, scripts
    _warm_up(executor)
    found = []
    for _ in range(rounds):
        workloads = _make_workloads(size)
        _insert_task_instances(workloads)
        _queue_workloads(executor, workloads)
        time.sleep(_HEARTBEAT_PAUSE)
        found.append(_measure(lambda: _run_heartbeat(executor)))
        executor.get_event_buffer()
    executor.terminate()
    return sorted(found, key=lambda figures: figures["wall"])[(len(found) - 1) // 2]


def _measure_idle(name: str, size: int, rounds: int) -> dict[str, float]:
    executor = _start_executor(name, size + 10)
    workloads = _make_workloads(size)
    _create_tables()
    _insert_task_instances(workloads)
    for start in range(0, size, 1000):
        _queue_workloads(executor, workloads[start : start + 1000])
        _run_heartbeat(executor)
        executor.get_event_buffer()
    _warm_up(executor)
    walls, cpus = [], []
    for _ in range(_SYNCS * rounds):
        time.sleep(_SYNC_INTERVAL)
        figures = _measure(executor.sync)
        walls.append(figures["wall"])
        cpus.append(figures["cpu"])
    executor.terminate()
    return {"mean": sum(walls) / len(walls), "worst": max(walls), "cpu": sum(cpus) / len(cpus), "worst_cpu": max(cpus)}


def _start_executor(name: str, parallelism: int) -> Any:
    module, _, class_name = EXECUTORS[name].rpartition(".")
    executor = getattr(import_module(module), class_name)(parallelism=parallelism)
    executor.job_id = 1
    executor.start()
    return executor


def _warm_up(executor: Any) -> None:
    """Wait until the first query has made SQLAlchemy configure all of Airflow's tables."""
    for _ in range(_WARM_SYNCS):
        time.sleep(_SYNC_INTERVAL)
        executor.sync()


def _submit_workloads(executor: Any, size: int) -> None:
    _queue_workloads(executor, _make_workloads(size))
    _run_heartbeat(executor)
    executor.get_event_buffer()


def _run_heartbeat(executor: Any) -> None:
    """Run one heartbeat; the ledger, the broker or ECS has the workloads when it returns."""
    executor.heartbeat()
    left = len(executor.queued_tasks) + len(getattr(executor, "pending_workloads", ()))
    if left:
        raise RuntimeError(f"{left} workloads were not submitted")


def _measure(act: Callable[[], None]) -> dict[str, float]:
    def children() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    cpu, of_children, wall = time.process_time(), children(), time.perf_counter()
    act()
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "children": children() - of_children,
    }


def _queue_workloads(executor: Any, workloads: list[Any]) -> None:
    for workload in workloads:
        executor.queue_workload(workload, session=None)


def _make_workloads(count: int) -> list[Any]:
    """Workloads as the scheduler makes them, with a token of usual length and a request id."""
    from airflow.executors import workloads

    task = workloads.ExecuteTask.model_fields["ti"].annotation
    assert task is not None
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + 3600, "sub": "x" * 200}).encode()).decode()
    token = f"eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.{claims.rstrip('=')}.{'s' * 86}"
    run = uuid.uuid4().hex
    made = []
    for number in range(count):
        known = {
            "id": uuid.uuid4(),
            "dag_version_id": uuid.uuid4(),
            "task_id": "extract_and_load",
            "dag_id": "nightly_warehouse",
            "run_id": f"scheduled__2026-01-01T00:00:00+00:00-{run}",
            "try_number": 1,
            "map_index": number,
            "pool_slots": 1,
            "queue": "default",
            "priority_weight": 1 + number % 10,
            "external_executor_id": str(uuid.uuid4()),
        }
        fields = {name: value for name, value in known.items() if name in task.model_fields}
        made.append(
            workloads.ExecuteTask(
                ti=task(**fields),
                dag_rel_path="warehouse/nightly.py",
                token=token,
                bundle_info=workloads.BundleInfo(name="dags-folder", version="0123456789abcdef"),
                log_path=f"dag_id=nightly_warehouse/run_id={run}/task_id=extract_and_load/map_index={number}/1.log",
            )
        )
    return made


def _create_tables() -> None:
    from airflow import settings
    from airflow.models import import_all_models
    from airflow.models.base import Base

    settings.initialize()
    import_all_models()
    Base.metadata.create_all(settings.engine)


def _insert_task_instances(workloads: list[Any]) -> None:
    """Insert the tasks into Airflow's database: the executor checks there whether they are still needed."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import insert, text

    rows = [
        {
            "id": workload.ti.id,
            **{name: getattr(workload.ti, name) for name in ("task_id", "dag_id", "run_id", "map_index", "try_number")},
            "external_executor_id": workload.ti.external_executor_id,
            "state": "queued",
            "pool": "default_pool",
            "pool_slots": 1,
            "max_tries": 0,
        }
        for workload in workloads
    ]
    with create_session() as session:
        session.execute(text("PRAGMA foreign_keys = OFF"))
        session.execute(insert(TaskInstance), rows)


if __name__ == "__main__":
    main()
