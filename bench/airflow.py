"""The cost of an executor for Airflow's scheduler: ours beside the upstream ones, each in a fresh process.

They run with the interpreter `BENCH_AIRFLOW_PYTHON` (`make bench` sets it), otherwise with this one. CeleryExecutor has
its own Redis as broker and result backend; AwsEcsExecutor uses the fake ECS of the other benchmarks, with 50 ms per
call.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.airflow_scheduler import EXECUTORS
from bench.measurement import Measurement
from bench.stack import running_stack
from ecs_queue.local.redis_server import RedisServer

ECS_LATENCY = 0.05
OUTSTANDING_TASKS = 10_000
_MODULES = ("airflow", "airflow.providers.celery", "airflow.providers.amazon", "ecs_queue")
_FIND_MODULES_PROGRAM = (
    "import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, sys.argv[1:])))"
)
_LABELS = {"ours": "EcsQueueExecutor", "celery": "CeleryExecutor", "ecs": "AwsEcsExecutor at 50 ms"}
#: AwsEcsExecutor takes a minute for 1,000 tasks.
_ROUNDS = {"ours": 9, "celery": 3, "ecs": 1}

Figures = dict[str, float]


def run(tasks: int) -> list[Measurement]:
    """Measure each executor with `tasks` tasks."""
    if not is_installed():
        raise SystemExit(f"{python()} lacks one of {', '.join(_MODULES)}; make bench installs them and runs this")
    with running_stack(ECS_LATENCY, workers=0) as parts, RedisServer() as celery, tempfile.TemporaryDirectory() as home:
        environ = {**parts.environ, **airflow_environment(Path(home), celery.url)}
        found = {name: _measure(environ, name, "heartbeat", tasks) for name in EXECUTORS}
        idle = _measure(environ, "ours", "idle", OUTSTANDING_TASKS)
    return [*_heartbeat_measurements(found, tasks), *_ratio_measurements(found), *_idle_measurements(idle)]


def is_installed(modules: Sequence[str] = _MODULES) -> bool:
    """Return whether Airflow's interpreter has the modules, by default the other executors."""
    try:
        return not subprocess.run(
            [python(), "-c", _FIND_MODULES_PROGRAM, *modules], stderr=subprocess.DEVNULL, check=False
        ).returncode
    except OSError:  # no such interpreter
        return False


def python() -> str:
    """Return the interpreter that has Airflow."""
    return os.environ.get("BENCH_AIRFLOW_PYTHON") or sys.executable


def _heartbeat_measurements(found: dict[str, Figures], tasks: int) -> list[Measurement]:
    rows = []
    for name, figures in found.items():
        used = f"{figures['wall']:.3f} s, CPU {figures['cpu']:.3f} s"
        of_children = f" + {figures['children']:.2f} s of its processes" if figures["children"] >= 0.01 else ""
        target = "<= 0.15 s" if name == "ours" else ""
        rows.append(Measurement(f"heartbeat submitting {tasks:,}, {_LABELS[name]}", used + of_children, target))
    return rows


def _ratio_measurements(found: dict[str, Figures]) -> list[Measurement]:
    """The baseline keeps the ratios of CPU time, which a busy machine changes least."""
    ours, rows = found["ours"], []
    for name in found.keys() - {"ours"}:
        wall, cpu = found[name]["wall"] / ours["wall"], _total_cpu(found[name]) / _total_cpu(ours)
        rows.append(Measurement(f"heartbeat, {_LABELS[name]} / ours", f"{wall:.1f}"))
        rows.append(Measurement(f"heartbeat, {_LABELS[name]} / ours, CPU", f"{cpu:.1f}", ratio=cpu))
    return sorted(rows)


def _idle_measurements(figures: Figures) -> list[Measurement]:
    def format_times(wall: str, cpu: str) -> str:
        return f"{figures[wall] * 1000:.1f} ms, CPU {figures[cpu] * 1000:.1f} ms"

    name = f"idle sync, {OUTSTANDING_TASKS:,} outstanding"
    return [
        Measurement(f"{name}, mean", format_times("mean", "cpu"), "<= 20 ms"),
        Measurement(f"{name}, worst", format_times("worst", "worst_cpu")),
    ]


def _total_cpu(figures: Figures) -> float:
    return figures["cpu"] + figures["children"]


def _measure(environ: dict[str, str], name: str, measurement: str, size: int) -> Figures:
    rounds = _ROUNDS[name] if measurement == "heartbeat" else 1
    command = [python(), "-W", "ignore", "-m", "bench.airflow_scheduler", name, measurement]
    options = ["--size", str(size), "--rounds", str(rounds)]
    done = subprocess.run([*command, *options], env=environ, stdout=subprocess.PIPE, check=True, timeout=900)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def airflow_environment(home: Path, celery_url: str) -> dict[str, str]:
    """Return the settings of an Airflow with a separate home and database, so that no real installation is changed."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-benchmarks-0123456789-0123456789-0123456789-0123456789",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW__CELERY__BROKER_URL": celery_url,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"{celery_url.removesuffix('/0')}/1",
        "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
    }
