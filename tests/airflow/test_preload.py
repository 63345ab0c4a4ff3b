"""What a queue of Airflow's tasks preloads: all that a task's process imports late, and no thread."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

PROGRAM = """
import importlib, json, os, sys
importlib.import_module("airflow.sdk.execution_time.execute_workload")
import ecs_queue.airflow.preload as preload
known = set(sys.modules)
importlib.import_module("airflow.sdk.execution_time.supervisor")
importlib.import_module("airflow.sdk.execution_time.task_runner")
from airflow.sdk import dag, task
print(json.dumps({
    "threads": len(os.listdir("/proc/self/task")),
    "missing": [name for name in preload.LATE_MODULES if name not in sys.modules],
    "late": sorted(set(sys.modules) - known),
}))
"""


def test_the_late_modules_are_imported_and_start_no_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], stdout=subprocess.PIPE, check=True, timeout=100
    )
    shown = json.loads(done.stdout.splitlines()[-1])
    assert shown["threads"] == 1
    assert shown["late"] == []
    from airflow import __version__

    if not __version__.startswith(("3.1.", "3.2.")):
        assert shown["missing"] == []
