"""Callbacks and connection tests end to end, with Airflow's own workloads and its program in the container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.executors import workloads

from ecs_queue.protocol.states import State
from tests.airflow.harness import AirflowHarness, make_callback, make_connection_test

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]  # a container imports all of Airflow

CALLBACKS = """
def succeed(path, **context):
    with open(path, "a") as log:
        log.write("called\\n")

def fail(path, **context):
    raise RuntimeError("this callback fails")
"""


def run_container_command(command: list[str], directory: Path) -> tuple[int, str]:
    """Run the command as a container does; return the exit status and the output."""
    environ = {
        **os.environ,
        "AIRFLOW__CORE__DAGS_FOLDER": str(directory),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:9/",  # nothing listens there
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(directory / "logs"),
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "1",
        "AIRFLOW_IS_EXECUTOR_CONTAINER": "true",
        "PYTHONPATH": str(directory),
    }
    completed = subprocess.run(
        [sys.executable, *command[1:]],
        env=environ,
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=200,
        check=False,
    )
    return completed.returncode, completed.stdout.decode()


def run_workload_through_queue(harness: AirflowHarness, item: Any, directory: Path) -> tuple[int, str, Any]:
    """Submit the workload, run its command, and process the result.

    Returns:
        The exit status, the output, and the event for the scheduler.
    """
    harness.queue(item)
    harness.heartbeat()
    command = json.loads(harness.broker.inner.requests[-1].body)["command"]
    request_id = harness.request_id_of(item)
    status, output = run_container_command(command, directory)
    harness.finish_request(request_id, State.FAILED if status else State.SUCCESS, exit_code=status)
    harness.heartbeat()
    assert not harness.executor.running
    return status, output, harness.collect_events().get(harness.executor.workload_key(item))


@pytest.mark.parametrize(
    ("path", "state"),
    [
        ("called_back.succeed", "success"),
        ("called_back.fail", "failed"),
        (
            "unusual_prefix_0123_dag.succeed",
            "success",
        ),  # in a DAG file: Airflow generates its module name
    ],
)
def test_the_exit_status_of_a_callback_is_reported_to_the_scheduler(
    harness: AirflowHarness, tmp_path: Path, path: str, state: str
) -> None:
    (tmp_path / "called_back.py").write_text(CALLBACKS)
    (tmp_path / "dag.py").write_text(CALLBACKS)
    item = make_callback(path=path, kwargs={"path": str(tmp_path / "calls.log")})
    item = item.model_copy(update={"bundle_info": workloads.BundleInfo(name="dags-folder")})
    status, output, event = run_workload_through_queue(harness, item, tmp_path)
    assert (status != 0) is (state == "failed"), output
    assert event[0] == state
    assert (tmp_path / "calls.log").exists() is (state == "success")


def test_a_connection_test_that_cannot_reach_the_api_server_ends_as_failed(
    harness: AirflowHarness, tmp_path: Path
) -> None:
    item = make_connection_test()
    status, output, event = run_workload_through_queue(harness, item, tmp_path)
    assert status != 0, output
    assert event[0] == "failed"
