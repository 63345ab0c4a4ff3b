"""The command line, in this process and in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ecs_queue.cli.main import cli
from ecs_queue.cli.ui.options import open_journal_reader
from ecs_queue.client.client import EcsQueue
from ecs_queue.local.ecs import local_environment
from ecs_queue.local.stack import LocalStack, StackOptions
from tests.processes import CLI_COMMAND, QUICK_SETTINGS
from tests.restored_logging import restored_logging
from tests.servers import require_redis_binary
from tests.wait import wait_until

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    with restored_logging():
        yield


@pytest.fixture
def invoke() -> Invoke:
    """``invoke("status", env={...}, input=...)``: a command in this process."""

    def run(*arguments: str, env: Mapping[str, str] | None = None, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(cli, arguments, env=dict(env or {}), input=input)

    return run


@pytest.fixture
def no_worker_environ(redis_url: str) -> dict[str, str]:
    """The environment of an installation without a worker: what is submitted stays QUEUED."""
    return local_environment("http://127.0.0.1:1", redis_url)


@dataclass
class Deployment:
    """A server, a local ECS and a worker."""

    environ: dict[str, str]

    def run(self, *arguments: str, input: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """A command in a process of its own, to its end."""
        done = subprocess.run(
            [*CLI_COMMAND, *arguments], env=self.environ, input=input, capture_output=True, timeout=60
        )
        decoded = (done.stdout.decode(), done.stderr.decode())
        return subprocess.CompletedProcess(done.args, done.returncode, *decoded)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A command in a process of its own; the caller ends it."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*CLI_COMMAND, *arguments], env=self.environ, **pipes)

    def make_client(self) -> EcsQueue:
        """A client of it."""
        return EcsQueue.from_config(environ=self.environ, owner="")


@pytest.fixture(scope="session")
def deployment() -> Iterator[Deployment]:
    """One for all tests of a process that need results; it ends with the process, however that ends."""
    require_redis_binary()
    prefix = "AIRFLOW__ECS_QUEUE__"
    quick = {name.removeprefix(prefix).lower(): value for name, value in QUICK_SETTINGS.items()}
    with LocalStack(StackOptions(config_values=quick)) as stack:
        yield Deployment(stack.environ)


def json_lines(text: str) -> list[dict[str, Any]]:
    """Every line as the object it must be."""
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(isinstance(line, dict) for line in lines)
    return lines


def task_file(folder: Path, *tasks: Mapping[str, Any] | str) -> Path:
    """A file for `submit --file`; text is taken as it is."""
    path = folder / "TASKS.jsonl"
    lines = [task if isinstance(task, str) else json.dumps(task) for task in tasks]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


PYTHON = sys.executable


def run_failing_request(deployment: Deployment, record_id: str, command: list[str], config: Mapping[str, Any]) -> None:
    """A request that has failed with exit 3 on the stack, and of which the journal has everything."""
    with deployment.make_client() as queue:
        result = queue.submit(command, id=record_id, executor_config=dict(config)).result(timeout=30)
        assert (result.state, result.exit_code) == ("FAILED", 3)
        with open_journal_reader(queue.config) as journal:
            wanted = {"request.submitted", "launch.called", "launch.started", "decision.poll", "request.ended"}
            wait_until(
                lambda: wanted <= {event.name for event in journal.request_events(record_id)}, "the journal has it", 20
            )


def open_bad_stream(kind: str) -> Any:
    """A stdout that is `full`, `closed` or, otherwise, a pipe that is read no more."""
    if kind == "closed":
        return None
    if kind == "full":
        return open("/dev/full", "w")
    read_end, write_end = os.pipe()
    os.close(read_end)
    return open(write_end, "w")
