"""A complete Airflow on this machine: its processes with the executor, a local ECS, and workers."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from ecs_queue.container_logs.local_files import LOCAL_LOG_VARIABLE
from ecs_queue.errors import RetryableError, UsageError
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, local_environment, new_access_key_id
from ecs_queue.local.private_files import PRIVATE_UMASK, make_private_directory, open_private_file
from ecs_queue.local.reaper import Reaper
from ecs_queue.local.redis_server import RedisServer, find_free_port
from ecs_queue.runs.runner_options import URL_VARIABLE

EXECUTOR = "ecs_queue.airflow.executor.EcsQueueExecutor"
_USER = "admin"
#: In the order in which they are started. Deferred tasks need the triggerer.
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
#: The variables that a task's image has: where the API and the DAGs are, but neither the database nor the broker.
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
_START_TIMEOUT_SECONDS = 120.0  # enough for two cores and a cold disk
_STOP_TIMEOUT_SECONDS = 15.0
_POLL_INTERVAL_SECONDS = 0.25

Row = dict[str, Any]


class LocalAirflow:
    """An Airflow that runs from `start` to `stop`. Its processes end when the process that made it ends."""

    def __init__(
        self,
        directory: Path,
        dags: Path,
        *,
        workers: int = 2,
        database: str | None = None,
        settings: Mapping[str, str] | None = None,
        shutdown_delay: float = 0.0,
        provision_seconds: float = 0.0,
        base_path: str = "",
    ) -> None:
        """Start nothing yet.

        Args:
            directory: Where all files are written; other users cannot read them.
            dags: The folder of DAG files.
            workers: The number of ecs-queue workers.
            database: The SQLAlchemy URL of an empty database; by default a file of SQLite, which allows one scheduler.
            settings: More environment variables for all processes.
            shutdown_delay: How many seconds after a container's end the local ECS shows its task as STOPPED.
            provision_seconds: How many seconds after RunTask the local ECS starts a container.
            base_path: The path of Airflow in the URL, such as `/airflow`, as behind a proxy.
        """
        self.directory = directory.resolve()
        self.dags = dags.resolve()
        self._workers = workers
        self._database = database or f"sqlite:///{self.directory / 'airflow.db'}"
        self._settings = dict(settings or {})
        self._services = ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._reaper = Reaper(self.directory)
        self._password = secrets.token_urlsafe(16)
        self._port, self._base_path = find_free_port(), base_path
        self.environ: dict[str, str] = {}
        self.redis = RedisServer(data_dir=self.directory / "redis", appendonly="always", password=secrets.token_hex(16))
        self._ecs_options = LocalEcsOptions(
            log_dir=self.directory / "tasks",
            access_key_id=new_access_key_id(),
            shutdown_delay_seconds=shutdown_delay,
            provision_seconds=(provision_seconds, provision_seconds),
        )
        self._ecs: LocalEcs | None = None

    @property
    def ecs(self) -> LocalEcs:
        """The local ECS. UsageError before `start`."""
        if self._ecs is None:
            raise UsageError("the local Airflow is not running: call start() first")
        return self._ecs

    @property
    def url(self) -> str:
        """The URL of the UI and the API."""
        return f"http://127.0.0.1:{self._port}{self._base_path}"

    @property
    def password_file(self) -> Path:
        """The file with the password of the user `admin` of the UI and the API."""
        return self.directory / "passwords.json"

    def start(self, on_progress: Callable[[str], None] = lambda _: None) -> None:
        """Start everything; return when the API answers.

        Raises:
            RetryableError: It takes too long.
            UsageError: A process has ended.
        """
        try:
            self._start_services()
            on_progress("creating Airflow's database")
            self.run_airflow_command("db", "migrate")
            for number in range(1, self._workers + 1):
                self.spawn(f"worker-{number}", "-m", "ecs_queue", "worker", "--name", f"worker-{number}")
            for component in COMPONENTS:
                self.start_component(component)
            on_progress("waiting for the API server")
            self.wait_for(self._is_api_up, _START_TIMEOUT_SECONDS, "the start of the API server")
        except BaseException:
            self.stop()
            raise

    def spawn(self, name: str, *arguments: str) -> None:
        """Start a process of this Python under a name; its output goes to `NAME.log`."""
        with open_private_file(self.directory / f"{name}.log", "ab") as log:
            process = self._reaper.spawn(
                [sys.executable, *arguments], environment=self.environ, stdout=log, umask=PRIVATE_UMASK
            )
        self._processes[name] = process

    def kill(self, name: str) -> None:
        """Kill a process and its children with SIGKILL."""
        process = self._processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._reaper.unwatch_group(process.pid)

    def start_component(self, component: str, name: str | None = None) -> None:
        """Start a component of Airflow (again); a second one of a kind needs a name of its own."""
        self.spawn(name or component, "-m", "airflow", component)

    def stop(self) -> None:
        """Stop everything. May be called twice."""
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
            self._reaper.unwatch_group(process.pid)
        self._processes = {}
        self._services.close()
        self._reaper.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def fetch_rows(self, query: str, **values: Any) -> list[Row]:
        """Return the rows of a query of Airflow's database; `:name` stands for a value."""
        import sqlalchemy

        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(sqlalchemy.text(query), values).mappings()]

    def has_table(self, name: str) -> bool:
        """Return whether this version of Airflow has the table."""
        import sqlalchemy

        return bool(sqlalchemy.inspect(self._engine).has_table(name))

    def call_api(self, path: str, body: Mapping[str, Any] | None = None, **headers: str) -> Any:
        """Return the public API's response to a GET request, or to a POST request with `body`.

        Args:
            path: The part after `/api/v2`.

        Raises:
            urllib.error.HTTPError: The API rejects the request.
        """
        return self._request_json(f"/api/v2{path}", body, {"Authorization": f"Bearer {self._token}", **headers})

    def trigger_dag(self, dag_id: str, run_id: str) -> None:
        """Start a run of a DAG; `wait_for_dags` waits until Airflow knows it."""
        self.call_api(f"/dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": None})

    def wait_for_dags(self) -> list[str]:
        """Wait until every DAG file is parsed; return the ids of all DAGs.

        Raises:
            UsageError: A file cannot be imported.
        """
        files = {str(file.relative_to(self.dags)) for file in self.dags.rglob("*.py") if _defines_dags(file)}

        def all_dags_parsed() -> bool:
            for error in self.fetch_rows("select filename, stacktrace from import_error"):
                raise UsageError(f"{error['filename']} cannot be imported: {error['stacktrace']}")
            return files <= {row["relative_fileloc"] for row in self.fetch_rows("select relative_fileloc from dag")}

        self.wait_for(all_dags_parsed, _START_TIMEOUT_SECONDS, "parsing the DAGs")
        return [str(row["dag_id"]) for row in self.fetch_rows("select dag_id from dag order by dag_id")]

    @cached_property
    def _engine(self) -> Any:
        import sqlalchemy

        return sqlalchemy.create_engine(self._database, poolclass=sqlalchemy.NullPool)

    @cached_property
    def _token(self) -> str:
        """Valid for a day."""
        login = {"username": _USER, "password": self._password}
        return str(self._request_json("/auth/token", login, {})["access_token"])

    def _request_json(self, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]) -> Any:
        request = urllib.request.Request(  # noqa: S310 - loopback
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Accept": "application/json", "Content-Type": "application/json", **headers},
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - loopback
            return json.load(response)

    def wait_for(self, is_done: Callable[[], bool], timeout: float, description: str) -> None:
        """Wait until `is_done()` is true.

        Raises:
            RetryableError: It takes more than `timeout` seconds.
            UsageError: A process has ended by itself.
        """
        deadline = time.monotonic() + timeout
        while not is_done():
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise UsageError(f"{name} exited with status {process.returncode}: see {self.directory}/{name}.log")
            if time.monotonic() > deadline:
                raise RetryableError(f"{description} took more than {timeout:g} s: see the logs in {self.directory}")
            time.sleep(_POLL_INTERVAL_SECONDS)

    def _start_services(self) -> None:
        make_private_directory(self.directory)
        with open_private_file(self.password_file, "wb") as file:
            file.write(json.dumps({_USER: self._password}).encode())
        with _this_python_on_path():
            self._services.enter_context(self.redis)
            self.environ = {name: value for name, value in os.environ.items() if not _is_inherited_setting(name)}
            self.environ |= self._build_airflow_environment() | self._settings
            options = replace(self._ecs_options, runner_environment=self._build_runner_environment())
            self._ecs = self._services.enter_context(LocalEcs(options))  # its containers run `python` from this PATH
        self.environ |= local_environment(self._ecs.endpoint_url, self.redis.url, options)
        self.environ |= {LOCAL_LOG_VARIABLE: str(options.log_dir)} | self._settings
        self.environ["AIRFLOW__AWS_ECS_EXECUTOR__RUN_TASK_KWARGS"] = self._build_image_run_task_kwargs()

    def _build_airflow_environment(self) -> dict[str, str]:
        home = self.directory
        return {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__EXECUTOR": EXECUTOR,
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{_USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.password_file),
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
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(find_free_port()),
            # For the tasks' calls. A small machine that starts many containers at once exceeds the default, 5 s.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            # The number of containers at once: each of them starts an Airflow, however small its task is.
            "AIRFLOW__ECS_QUEUE__MAX_IN_FLIGHT": "10",
            # Airflow notices within seconds that a scheduler was killed.
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
            "no_proxy": "127.0.0.1",
            "NO_PROXY": "127.0.0.1",
        }

    def _build_runner_environment(self) -> dict[str, str]:
        """What a runner has of its image and its secrets: it imports Airflow before it gets a request."""
        image = {name: self.environ[name] for name in _IMAGE_VARIABLES}
        return {"PATH": self.environ["PATH"], URL_VARIABLE: self.redis.url, **image}

    def _build_image_run_task_kwargs(self) -> str:
        """The variables of a task image; the local ECS passes on nothing of this process's environment."""
        pairs = [{"name": name, "value": self.environ[name]} for name in _IMAGE_VARIABLES]
        return json.dumps({"overrides": {"containerOverrides": [{"name": "main", "environment": pairs}]}})

    def run_airflow_command(self, *arguments: str) -> None:
        """Run a command of Airflow.

        Raises:
            UsageError: The command fails; the message has the end of its output.
        """
        completed = subprocess.run(  # noqa: S603 - Airflow
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            umask=PRIVATE_UMASK,
        )
        if completed.returncode != 0:
            raise UsageError(f"airflow {' '.join(arguments)} failed: {completed.stderr.strip()[-500:]}")

    def _is_api_up(self) -> bool:
        try:
            return bool(self._request_json("/api/v2/version", None, {}))
        except OSError:  # urllib.error.URLError is one
            return False


def _defines_dags(file: Path) -> bool:
    """Whether the file probably defines DAGs; Airflow guesses in the same way."""
    return re.search(r"@dag\b|\bDAG\(", file.read_text(errors="replace")) is not None


def _is_inherited_setting(name: str) -> bool:
    """Whether a variable could lead to the user's own Airflow, AWS account or server."""
    return name.startswith(("AIRFLOW_", "AWS_", "ECS_QUEUE_")) and name != "AWS_CA_BUNDLE"


@contextmanager
def _this_python_on_path() -> Iterator[None]:
    original = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{original}"
    try:
        yield
    finally:
        os.environ["PATH"] = original
