"""A real runner process, whose test is the launcher: it assigns commands to the run and reads how they ended."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from ecs_queue.local.redis_server import RedisServer
from ecs_queue.runs.runner_key import Assignment, RunnerCommand, RunnerKeys
from ecs_queue.runs.runner_options import RunnerOptions
from ecs_queue.server_keys import ledger_prefix
from tests.docs import ROOT
from tests.wait import wait_until

ARN = "arn:aws:ecs:us-east-1:123456789012:task/local/0123"
NAMESPACE, QUEUE = "runners", "default"
PREFIX = ledger_prefix(NAMESPACE)
SECRET_URL_NAME = "ECS_QUEUE_RUNNER_URL"


class RunnerProcess:
    """One runner process and its run."""

    def __init__(self, server: RedisServer, metadata_url: str, directory: Path, **options: Any) -> None:
        self.name = f"r{os.urandom(4).hex()}.nonce-01.1"
        self.client: Any = redis.Redis.from_url(server.url)
        self.log = directory / f"{self.name}.log"
        self.directory = directory
        self.keys = RunnerKeys()
        self.turn = 0
        self.server = server
        self.metadata_url = metadata_url
        numbers: dict[str, Any] = {"warm_seconds": 600.0, **options}
        self.options = RunnerOptions(run=self.name, namespace=NAMESPACE, queue=QUEUE, **numbers)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the container."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "CONTAINER": "its own",
            "TMPDIR": str(self.directory),
            "ECS_CONTAINER_METADATA_URI_V4": self.metadata_url,
            "ECS_QUEUE_RUNNER": msgspec.json.encode(self.options).decode(),
            SECRET_URL_NAME: self.server.url,
        }

    def start(self, **environment: str) -> RunnerProcess:
        """Start the process."""
        return self.start_behind(**environment)

    def start_in(self, directory: Path) -> RunnerProcess:
        """Start the process in another working directory."""
        self.directory = directory
        return self.start(TMPDIR=str(self.log.parent))

    def start_behind(self, *program: str, **environment: str) -> RunnerProcess:
        """Start the process as the last arguments of another program."""
        # A launcher makes the run first: a runner that finds none leaves, perhaps before a test assigns a command.
        self.client.hsetnx(f"{PREFIX}run:{self.name}", "phase", "idle")
        return self.start_without_run(*program, **environment)

    def start_without_run(self, *program: str, **environment: str) -> RunnerProcess:
        """Start the process as `start_behind` does, whether there is a run or not."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*program, sys.executable, "-m", "ecs_queue", "runner"],
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )
        return self

    def assign(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        record_id: str = "",
        phase: str = "assigned",
    ) -> int:
        """Assign a command to the run, as a launcher's claim does; return its turn."""
        self.turn += 1
        record_id = record_id or f"req-{self.turn}"
        assignment = Assignment(NAMESPACE, QUEUE, record_id, "n", 1)
        payload = self.keys.seal_payload(
            RunnerCommand(list(command), dict(environment or {})), assignment, encrypts=False
        )
        self.client.set(f"{PREFIX}turn:{self.name}", payload)
        self.store(phase=phase, turn=self.turn, id=record_id, nonce="n", launch=1, cancel="")
        self.wake()
        return self.turn

    def store(self, **fields: Any) -> None:
        """Change fields of the run."""
        self.client.hset(f"{PREFIX}run:{self.name}", mapping=fields)

    def waits(self) -> bool:
        """Whether it waits for a wake-up, on a server of its own."""
        return any("b" in each["flags"] for each in self.client.client_list())

    def delete_keys(self) -> None:
        """Delete all that the server knows of it."""
        self.client.delete(*(f"{PREFIX}{key}:{self.name}" for key in ("run", "turn", "wake")))

    def wake(self) -> None:
        """Announce a change of the run."""
        self.client.lpush(f"{PREFIX}wake:{self.name}", "")

    def cancel(self) -> None:
        """Have the command cancelled."""
        self.store(cancel="1")
        self.wake()

    def fields(self) -> dict[str, str]:
        """The run as it is stored."""
        found = self.client.hgetall(f"{PREFIX}run:{self.name}")
        return {name.decode(): value.decode() for name, value in found.items()}

    def end(self) -> tuple[int, bool]:
        """Wait for the end of the command that was assigned last: exit code, and whether it was cancelled."""
        wait_until(lambda: self.fields()["phase"] == "ended", "the command ends", interval=0.005)
        fields = self.fields()
        assert int(fields["turn"]) == self.turn
        self.store(phase="idle")
        return int(fields["exit_code"]), fields["cancelled"] == "1"

    def run(self, *command: str, **more: Any) -> int:
        """Run a command to its end; return its exit code."""
        self.assign(*command, **more)
        return self.end()[0]

    def output(self) -> str:
        """What was logged."""
        return self.log.read_text(errors="replace")

    def output_of(self, turn: int) -> str:
        """What was logged between the lines that name this turn's request."""
        start, end = f"request req-{turn}, launch 1, turn {turn}\n", f"ecs-queue runner: end of request req-{turn},"
        return self.output().partition(start)[2].partition(end)[0]

    def shell(self, script: str, *arguments: str, **more: Any) -> tuple[int, str]:
        """Run a shell script; return its exit code and output."""
        code = self.run("sh", "-c", script, "sh", *arguments, **more)
        return code, self.output_of(self.turn)

    def await_lines(self, path: Path, number: int) -> None:
        """Wait until a command has written this many lines."""
        wait_until(lambda: len(path.read_text().splitlines()) >= number, f"{number} lines in {path.name}")

    def stop(self) -> None:
        """Kill the process; a container would end its commands, too."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.client.close()


MakeRunner = Callable[..., RunnerProcess]


class _MetadataHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"TaskARN": ARN}).encode()
        self.send_response(200 if self.path == "/v4/secret/task" else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def metadata_url() -> Iterator[str]:
    """The URL of a container's metadata."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _MetadataHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v4/secret"
        server.shutdown()


@pytest.fixture
def make_runner(redis_server: RedisServer, metadata_url: str, tmp_path: Path) -> Iterator[MakeRunner]:
    """Makes runner processes that end with the test."""
    with ExitStack() as stack:

        def make(server: RedisServer | None = None, **options: Any) -> RunnerProcess:
            runner = RunnerProcess(server or redis_server, metadata_url, tmp_path, **options)
            stack.callback(runner.stop)
            return runner

        yield make


@pytest.fixture(scope="module")
def runner(
    redis_server: RedisServer, metadata_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunnerProcess]:
    """One runner for all tests of a module: as in a pool, none may see what another one did."""
    process = RunnerProcess(redis_server, metadata_url, tmp_path_factory.mktemp("runner")).start()
    yield process
    process.stop()
