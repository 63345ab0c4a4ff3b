"""Real processes for tests. Each is ended by its process id."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ecs_queue

#: The path on which `python -c` finds the package under test, installed or not.
IMPORT_ROOT = Path(ecs_queue.__file__).parents[1]
_EXIT_TIMEOUT_SECONDS = 20.0
CLI_COMMAND = (sys.executable, "-m", "ecs_queue")

#: Leases and retries short enough for a test; all waits of a worker derive from them.
QUICK_SETTINGS = {
    "AIRFLOW__ECS_QUEUE__LEASE_SECONDS": "4",
    "AIRFLOW__ECS_QUEUE__SETTLE_SECONDS": "3",
    "AIRFLOW__ECS_QUEUE__SWEEP_AFTER_SECONDS": "2",
    "AIRFLOW__ECS_QUEUE__VISIBILITY_TIMEOUT": "6",
    "AIRFLOW__ECS_QUEUE__RETRY_BASE_SECONDS": "0.1",
    "AIRFLOW__ECS_QUEUE__RETRY_CAP_SECONDS": "0.5",
    "AIRFLOW__ECS_QUEUE__RUN_TASK_RATE": "0",
    "AIRFLOW__ECS_QUEUE__DESCRIBE_TASKS_RATE": "0",
}


def merged_environ(*parts: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment, overridden by `parts`."""
    merged = dict(os.environ)
    for part in parts:
        merged.update(part)
    return merged


@contextmanager
def run_worker(
    environ: Mapping[str, str], log: Path, *options: str, command: Sequence[str] = (*CLI_COMMAND, "worker")
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker, or another command, within the context. It gets SIGTERM at the end if it still runs."""
    with log.open("ab") as sink:
        process = subprocess.Popen([*command, *options], env=dict(environ), stdout=sink, stderr=sink)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def write_json_lines(path: Path, tasks: list[dict[str, Any]]) -> Path:
    """Write a file for `submit --file`."""
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    return path


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a result file; none if it does not exist."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def assert_process_ended(pid: int) -> None:
    """Wait until a process that is no child of this one has ended (a zombie has)."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], _EXIT_TIMEOUT_SECONDS)[0], f"process {pid} still runs"
    finally:
        os.close(descriptor)
