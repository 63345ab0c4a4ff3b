"""A whole Airflow on this machine: its processes on SQLite, the executor, a local ECS, and launcher workers."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from ecs_queue.airflow.task_log import LOCAL_LOG_VARIABLE
from ecs_queue.errors import RetryableError, UsageError
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, local_environment
from ecs_queue.local.reaper import Reaper
from ecs_queue.local.redis_server import RedisServer

EXECUTOR = "ecs_queue.airflow.executor.EcsQueueExecutor"
#: In the order in which they start. The triggerer is there for deferred tasks.
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
#: What a task's image knows of the installation: where the API is, where the DAGs are. No database, no broker.
_IMAGE_VARIABLES = (
    "AIRFLOW_HOME",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__CORE__DAGS_FOLDER",
    "AIRFLOW__CORE__LOAD_EXAMPLES",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER",
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT",
    "no_proxy",
    "NO_PROXY",
)
_START_TIMEOUT_SECONDS = 120.0  # two cores and a cold disk
_STOP_TIMEOUT_SECONDS = 15.0
_POLL_INTERVAL_SECONDS = 0.25

Row = dict[str, Any]


class LocalAirflow:
    """Runs from `start` to `stop`; its processes end with the one that made it.

    directory: everything it writes. dags: the folder of DAG files. workers: how many launchers. database: the
    SQLAlchemy URL of an empty database; None is a file of SQLite, which allows one scheduler. settings: more variables
    for all of its processes.
    """

    def __init__(
        self,
        directory: Path,
        dags: Path,
        *,
        workers: int = 2,
        database: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.dags = dags.resolve()
        self._workers = workers
        self._database = database or f"sqlite:///{self.directory / 'airflow.db'}"
        self._settings = dict(settings or {})
        self._services = ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._keeper = Reaper()
        self._port = _find_free_port()
        self.environ: dict[str, str] = {}
        self.redis = RedisServer(data_dir=self.directory / "redis", appendonly="always")
        self._ecs_options = LocalEcsOptions(log_dir=self.directory / "tasks")
        self.ecs = LocalEcs(self._ecs_options)

    @property
    def url(self) -> str:
        """Of the UI and the API."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pids(self) -> dict[str, int]:
        """Name -> process id of all that run."""
        return {name: process.pid for name, process in self._processes.items() if process.poll() is None}

    def start(self, on_progress: Callable[[str], None] = lambda _: None) -> None:
        """Start all of it; returns when the API answers. RetryableError when that takes too long."""
        try:
            self._start_services()
            on_progress("making Airflow's database")
            self.run_airflow_command("db", "migrate")
            for number in range(1, self._workers + 1):
                self.spawn(f"worker-{number}", "-m", "ecs_queue", "worker", "--name", f"worker-{number}")
            for component in COMPONENTS:
                self.spawn(component, "-m", "airflow", component)
            on_progress("waiting for the API server")
            self._wait_for_api()
        except BaseException:
            self.stop()
            raise

    def spawn(self, name: str, *arguments: str) -> None:
        """One process of this Python under a name; its output goes to `NAME.log`."""
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - ourselves and Airflow
                [sys.executable, *arguments],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._keeper.watch_group(process.pid)
        self._processes[name] = process

    def kill(self, name: str) -> None:
        """End one process and its children at once, by SIGKILL."""
        process = self._processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._keeper.unwatch_group(process.pid)

    def start_component(self, component: str, name: str | None = None) -> None:
        """Start a part of Airflow (again); under a name of its own when there are several of a kind."""
        self.spawn(name or component, "-m", "airflow", component)

    def stop(self) -> None:
        """End everything. May be called twice."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_TIMEOUT_SECONDS
        for process in self._processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            self._keeper.unwatch_group(process.pid)
        self._processes = {}
        self._services.close()
        self._keeper.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def fetch_rows(self, query: str, **values: Any) -> list[Row]:
        """What a query of Airflow's database finds; `:name` stands for a value."""
        import sqlalchemy

        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(sqlalchemy.text(query), values).mappings()]

    def has_table(self, name: str) -> bool:
        """Whether this version of Airflow keeps such a table."""
        import sqlalchemy

        return bool(sqlalchemy.inspect(self._engine).has_table(name))

    def call_api(self, path: str, body: Mapping[str, Any] | None = None, **headers: str) -> Any:
        """What the public API, which the UI uses too, answers to a GET, or to a POST of `body`.

        path: after `/api/v2`. urllib.error.HTTPError when the API refuses.
        """
        return self._request_json(f"/api/v2{path}", body, {"Authorization": f"Bearer {self._token}", **headers})

    def trigger_dag(self, dag_id: str, run_id: str) -> None:
        """Start a run of a DAG that is known (see `await_dags`)."""
        self.call_api(f"/dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": None})

    def wait_for_dags(self) -> list[str]:
        """The ids of all DAGs, once every file that makes any was read. UsageError when one cannot be imported."""
        files = {str(file.relative_to(self.dags)) for file in self.dags.rglob("*.py") if _defines_dags(file)}

        def all_are_read() -> bool:
            for error in self.fetch_rows("select filename, stacktrace from import_error"):
                raise UsageError(f"{error['filename']} cannot be imported: {error['stacktrace']}")
            return files <= {row["relative_fileloc"] for row in self.fetch_rows("select relative_fileloc from dag")}

        self.wait_for(all_are_read, _START_TIMEOUT_SECONDS, "the reading of the DAGs")
        return [str(row["dag_id"]) for row in self.fetch_rows("select dag_id from dag order by dag_id")]

    @cached_property
    def _engine(self) -> Any:
        import sqlalchemy

        return sqlalchemy.create_engine(self._database, poolclass=sqlalchemy.NullPool)

    @cached_property
    def _token(self) -> str:
        """It is good for a day."""
        return str(self._request_json("/auth/token", None, {})["access_token"])

    def _request_json(self, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]) -> Any:
        request = urllib.request.Request(  # noqa: S310 - loopback
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Accept": "application/json", "Content-Type": "application/json", **headers},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
            return json.load(answer)

    def wait_for(self, is_done: Callable[[], bool], timeout: float, description: str) -> None:
        """Until `is_done`; RetryableError after `seconds`, UsageError when a process ended by itself."""
        deadline = time.monotonic() + timeout
        while not is_done():
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise UsageError(f"{name} ended with status {process.returncode}: see {self.directory}/{name}.log")
            if time.monotonic() > deadline:
                raise RetryableError(f"{description} took more than {timeout:g} s: see the logs in {self.directory}")
            time.sleep(_POLL_INTERVAL_SECONDS)

    def _start_services(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        bin_directory = str(Path(sys.executable).parent)
        with _patched_variable("PATH", f"{bin_directory}{os.pathsep}{os.environ.get('PATH', '')}"):
            self._services.enter_context(self.redis)
            self._services.enter_context(self.ecs)  # its containers run `python` as found here
            self.environ = {name: value for name, value in os.environ.items() if not _is_inherited_setting(name)}
        self.environ |= local_environment(self.ecs.endpoint_url, self.redis.url, self._ecs_options)
        self.environ |= self._build_airflow_environment() | {LOCAL_LOG_VARIABLE: str(self._ecs_options.log_dir)}
        self.environ |= self._settings
        self.environ["AIRFLOW__AWS_ECS_EXECUTOR__RUN_TASK_KWARGS"] = self._build_image_run_task_kwargs()

    def _build_airflow_environment(self) -> dict[str, str]:
        home = self.directory
        return {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__EXECUTOR": EXECUTOR,
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._database,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self._port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(_find_free_port()),
            # Of the tasks' calls. A small machine that starts many containers at once is slower than the default, 5 s.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            # Containers at once: each of them starts an Airflow, whatever little its task does.
            "AIRFLOW__ECS_QUEUE__MAX_IN_FLIGHT": "10",
            # A scheduler that was killed is noticed within seconds.
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
            "no_proxy": "127.0.0.1",
            "NO_PROXY": "127.0.0.1",
        }

    def _build_image_run_task_kwargs(self) -> str:
        """What a task image has of its own; the local ECS hands on nothing of this process's environment."""
        pairs = [{"name": name, "value": self.environ[name]} for name in _IMAGE_VARIABLES]
        return json.dumps({"overrides": {"containerOverrides": [{"name": "main", "environment": pairs}]}})

    def run_airflow_command(self, *arguments: str) -> None:
        """One command of Airflow's own; UsageError with its last words when it fails."""
        found = subprocess.run(  # noqa: S603 - Airflow
            [sys.executable, "-m", "airflow", *arguments], env=self.environ, capture_output=True, text=True, check=False
        )
        if found.returncode != 0:
            raise UsageError(f"airflow {' '.join(arguments)} failed: {found.stderr.strip()[-500:]}")

    def _wait_for_api(self) -> None:
        def answers() -> bool:
            try:
                return bool(self._request_json("/api/v2/version", None, {}))
            except (urllib.error.URLError, OSError):
                return False

        self.wait_for(answers, _START_TIMEOUT_SECONDS, "the API server's start")


def _defines_dags(file: Path) -> bool:
    """Airflow's own guess is as rough."""
    return re.search(r"@dag\b|\bDAG\(", file.read_text(errors="replace")) is not None


def _find_free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_inherited_setting(name: str) -> bool:
    """A variable that could lead to somebody's own Airflow, account or server."""
    return name.startswith(("AIRFLOW_", "AWS_", "ECS_QUEUE_")) and name != "AWS_CA_BUNDLE"


class _patched_variable:  # noqa: N801 - used like a function
    def __init__(self, name: str, value: str) -> None:
        self._name, self._value, self._old = name, value, os.environ.get(name)

    def __enter__(self) -> None:
        os.environ[self._name] = self._value

    def __exit__(self, *_: object) -> None:
        if self._old is None:
            del os.environ[self._name]
        else:
            os.environ[self._name] = self._old
