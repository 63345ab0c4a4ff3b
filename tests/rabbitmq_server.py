"""A RabbitMQ of the tests' own: free ports, a node name, data and a cookie in a temporary directory.

It needs Debian's package rabbitmq-server or one with the same scripts; the server that the package starts is not used.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from ecs_queue.local.redis_server import find_free_port
from tests.wait import wait_until

#: The server's own script; the one on PATH refuses any user but root and rabbitmq, and changes to the latter.
_SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_START_SECONDS = 90.0
#: A user with its name as password and the rights of docs/production.md on the namespace of that name.
LIMITED_USER = "limited"
#: Servers that this process has started and that others may still use.
_SHARED: list[object] = []
_CONFIGURATION = """
listeners.tcp.1 = 127.0.0.1:{port}
disk_free_limit.absolute = 1MB
log.console = false
log.file.level = warning
load_definitions = {definitions}
"""
_RESOURCE_NAMES = rf"^{LIMITED_USER}\."
_DEFINITIONS = {
    "users": [{"name": name, "password": name, "tags": ""} for name in ("guest", LIMITED_USER)],
    "vhosts": [{"name": "/"}],
    "permissions": [
        {"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},
        {
            "user": LIMITED_USER,
            "vhost": "/",
            "configure": _RESOURCE_NAMES,
            "write": rf"^({LIMITED_USER}\.|amq\.default)",
            "read": _RESOURCE_NAMES,
        },
    ],
}


def find_rabbitmq_server() -> str | None:
    """Return the server's script, or None."""
    return str(_SCRIPT) if os.access(_SCRIPT, os.X_OK) and shutil.which("epmd") else None


class RabbitMqServer:
    """One node. `stop` and `kill` keep its ports and data, so that `start` brings the same server back."""

    def __init__(self, folder: Path, configuration: str = "", erl_arguments: str = "") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plugins").write_text("[].\n")
        self.port, distribution_port, self._epmd_port = (find_free_port() for _ in range(3))
        (folder / "definitions.json").write_text(json.dumps(_DEFINITIONS))
        own = _CONFIGURATION.format(port=self.port, definitions=folder / "definitions.json")
        (folder / "rabbitmq.conf").write_text(own + configuration)
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"t{uuid.uuid4().hex[:8]}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            # One scheduler that does not spin: tests run beside it.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 1:1 +sbwt none {erl_arguments}",
            "ERL_CRASH_DUMP": str(folder / "crash"),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        self._epmd: subprocess.Popen[bytes] | None = None
        self._script: subprocess.Popen[bytes] | None = None
        self.pid = 0

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        return [self.pid, *([self._epmd.pid] if self._epmd else [])]

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        if self._epmd is None:  # otherwise the server would start one that nothing ends
            command = ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = subprocess.Popen(command, env=self._environ)
            wait_until(lambda: _is_open(self._epmd_port), "epmd answers")
        (self._folder / "pid").unlink(missing_ok=True)
        with (self._folder / "output").open("ab") as output:
            self._script = subprocess.Popen(
                [str(_SCRIPT)], env=self._environ, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        wait_until(self._is_ready, "RabbitMQ answers", _START_SECONDS)
        self.pid = int((self._folder / "pid").read_text())

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server's process; with SIGKILL it has no time for anything."""
        if self._script is None:
            return
        if self._script.poll() is None:
            children = psutil.Process(self._script.pid).children(recursive=True)
            os.kill(self.pid or (children[-1].pid if children else self._script.pid), how)
            self._script.wait(60)
        self._script = None
        self.pid = 0

    @contextmanager
    def blocked_publishers(self) -> Iterator[None]:
        """Let the server have no memory left for messages within the context."""
        self._set_memory_limit("0")
        try:
            yield
        finally:
            self._set_memory_limit("0.4")

    def _set_memory_limit(self, share: str) -> None:
        command = [str(_SCRIPT.with_name("rabbitmqctl")), "-n", self._environ["RABBITMQ_NODENAME"]]
        environ = {**self._environ, "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ""}
        subprocess.run(
            [*command, "set_vm_memory_high_watermark", share], env=environ, check=True, capture_output=True, timeout=60
        )

    def close(self) -> None:
        """End all of its processes."""
        try:
            self.stop(signal.SIGKILL)
        finally:
            if self._epmd is not None:
                self._epmd.kill()
                self._epmd.wait()

    def _is_ready(self) -> bool:
        assert self._script is not None
        assert self._script.poll() is None, (self._folder / "output").read_text()
        return (self._folder / "pid").exists() and _answers(self.port)


@contextmanager
def shared_rabbitmq(folder: Path) -> Iterator[str]:
    """The URL of one server for all processes that name this folder. The first one starts it, the last one ends it."""
    state_file = folder / "rabbitmq.json"
    with _locked(folder):
        state = json.loads(state_file.read_text()) if state_file.exists() else {"users": 0}
        if not state["users"]:
            server = RabbitMqServer(folder / f"rabbitmq-{uuid.uuid4().hex[:8]}")
            _SHARED.append(server)
            try:
                server.start()
            except BaseException:
                server.close()
                raise
            state = {"users": 0, "url": server.url, "pids": server.pids}
        state["users"] += 1
        state_file.write_text(json.dumps(state))
    try:
        yield str(state["url"])
    finally:
        with _locked(folder):
            state = json.loads(state_file.read_text())
            state["users"] -= 1
            state_file.write_text(json.dumps(state))
            for pid in state["pids"] if not state["users"] else ():
                os.kill(pid, signal.SIGKILL)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "rabbitmq.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _answers(port: int) -> bool:
    """Whether the server greets: its port is open before it does."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True
