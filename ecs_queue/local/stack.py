"""The local stack: an embedded Redis or Valkey, a local ECS in this process, and workers as child processes."""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import IO

from ecs_queue.container_logs.local_files import LOCAL_LOG_VARIABLE
from ecs_queue.errors import RetryableError, UsageError
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, local_environment, new_access_key_id
from ecs_queue.local.private_files import OwnedDirectory, make_private_directory, open_private_file
from ecs_queue.local.reaper import Reaper, end_process, last_log_line
from ecs_queue.local.redis_server import AppendFsync, RedisServer
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.runs.runner_options import CALL_URL_VARIABLE, URL_VARIABLE

#: Variables that could connect a process of the stack to a real account, server or cluster.
_OWN_PREFIXES = ("AWS_", "AIRFLOW__ECS_QUEUE__", "AIRFLOW__AWS_ECS_EXECUTOR")
_OWN_NAMES = ("ECS_QUEUE_CONFIG", LOCAL_LOG_VARIABLE)
_ALLOWED_NAMES = ("AWS_CA_BUNDLE",)
_READY_SECONDS = 20.0
_STOP_SECONDS = 12.0  # a worker ends within 10 s of SIGTERM
_POLL_SECONDS = 0.02
#: Directories in the stack's own.
_PRIVATE_DIRECTORIES = ("redis", "tasks")
#: A part that ends by itself more often than this within that many seconds is not started again.
_MAX_RESTARTS, _RESTART_WINDOW = 5, 60.0


@dataclass(frozen=True, kw_only=True, repr=False)
class StackOptions(PayloadRepr):
    """The parts of a local stack.

    Attributes:
        workers: number of worker processes.
        redis_port: 0 chooses a free port.
        ecs: how the local ECS behaves.
        directory: for the server's append-only file, one log per worker, and `env.sh` with the exports; None keeps
            nothing after the stack's end.
        config_values: keys of [ecs_queue] as text, for all processes of the stack.
        worker_args: command-line options of each worker.
    """

    workers: int = 1
    redis_port: int = 0
    ecs: LocalEcsOptions = field(default_factory=LocalEcsOptions)
    directory: Path | None = None
    config_values: Mapping[str, str] = field(default_factory=dict)
    worker_args: tuple[str, ...] = ()


class LocalStack:
    """Runs from `start` to `stop`. All its processes end with the process that made it, even after SIGKILL.

    Only programs that know its `exports` can use it: they have the server's password and the access key of the local
    ECS, both new in each stack. Its files can be read by its user only. Not thread-safe.
    """

    def __init__(self, options: StackOptions | None = None) -> None:
        options = options or StackOptions()
        key = options.ecs.access_key_id or new_access_key_id()
        self._options = replace(options, ecs=replace(options.ecs, access_key_id=key))
        self._exit_stack = ExitStack()
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._reaper: Reaper | None = None
        self._server: RedisServer | None = None
        self._directory: OwnedDirectory | None = None
        self._restarted_at: defaultdict[str, list[float]] = defaultdict(list)
        self.exports: dict[str, str] = {}
        self.redis_url = ""
        self.endpoint_url = ""

    @property
    def variables_to_unset(self) -> list[str]:
        """Variables of this process's environment that would contradict `exports`."""
        return variables_to_unset(self.exports)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a process that uses the stack: this process's, without variables of other systems."""
        return {name: value for name, value in os.environ.items() if not _must_not_be_inherited(name)} | self.exports

    @property
    def shell_lines(self) -> list[str]:
        """Lines for a shell that connect it to the stack."""
        return shell_lines(self.exports)

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each worker by name."""
        return {name: process.pid for name, process in self._workers.items()}

    @property
    def server_pid(self) -> int:
        """The process id of the server. UsageError when it is not running."""
        if self._server is None:
            raise UsageError("the stack is not running: call start() first")
        return self._server.pid

    def exited_workers(self) -> dict[str, int]:
        """Return the exit status, by name, of workers that ended by themselves."""
        return {name: code for name, process in self._workers.items() if (code := process.poll()) is not None}

    def restart_ended_parts(self) -> list[str]:
        """Start again the server and the workers that ended by themselves; return a sentence about each.

        The server keeps its port and data, and a worker its name. The local ECS lives in this process.

        Raises:
            RetryableError: a part ends again and again, or the server does not start.
            UsageError: another program has taken the server's port.
        """
        sentences = []
        if self._server is not None and not self._server.is_running:
            self._count_restart("server", "its log says why")
            self._server.restart()
            sentences.append(f"the server ended by itself; started again (pid {self._server.pid}), with its data")
        for name, code in self.exited_workers().items():
            self._count_restart(f"worker {name}", self._last_log_line(name))
            if self._reaper is not None:
                self._reaper.unwatch_group(self._workers[name].pid)
            self._start_worker(name)
            sentences.append(
                f"the worker {name} ended by itself with status {code}; started again (pid {self.pids[name]})"
            )
        return sentences

    def _count_restart(self, part: str, hint: str) -> None:
        now = time.monotonic()
        recent = [at for at in self._restarted_at[part] if now - at < _RESTART_WINDOW]
        if len(recent) >= _MAX_RESTARTS:
            raise RetryableError(f"the {part} ended {len(recent) + 1} times within {_RESTART_WINDOW:g} s: {hint}")
        self._restarted_at[part] = [*recent, now]

    def start(self, on_progress: Callable[[str], None] = lambda _: None) -> None:
        """Start all parts, and return when every worker accepts requests.

        Args:
            on_progress: gets a line about each part.

        Raises:
            UsageError: a port is taken, another stack uses the directory, no server program is found, or a worker
                cannot start.
            RetryableError: a part was not ready in time.
        """
        try:
            self._start_services(on_progress)
            for number in range(1, self._options.workers + 1):
                self._start_worker(f"local-{number}")
            self._await_workers()
            on_progress(f"workers    {', '.join(f'{name} (pid {pid})' for name, pid in self.pids.items())}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the workers, then the local ECS with its tasks, then the server. May be called twice."""
        self._exit_stack.close()
        self._workers = {}
        self._server = None

    def __enter__(self) -> LocalStack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_services(self, on_progress: Callable[[str], None]) -> None:
        options = self._options
        self._directory = self._own_directory()
        data_dir = options.directory / "redis" if options.directory else None
        # Without a directory the data outlive the server's process, not this one.
        appendonly: AppendFsync = "always" if data_dir else "everysec"
        server = RedisServer(
            port=options.redis_port or None, data_dir=data_dir, appendonly=appendonly, password=secrets.token_hex(16)
        )
        self._server = server
        self.redis_url = self._exit_stack.enter_context(server).url
        on_progress(f"server     {server.address} (pid {server.pid})")
        ecs_options = replace(options.ecs, runner_environment=self._runner_environment())
        ecs = self._exit_stack.enter_context(LocalEcs(ecs_options))
        self.endpoint_url = ecs.endpoint_url
        on_progress(f"local ECS  {self.endpoint_url}; it runs commands as you")
        self.exports = {LOCAL_LOG_VARIABLE: str(ecs.log_dir)}
        self.exports |= local_environment(self.endpoint_url, self.redis_url, options.ecs)
        self.exports |= {f"AIRFLOW__ECS_QUEUE__{key.upper()}": value for key, value in options.config_values.items()}
        self.exports |= _without_proxy(os.environ)
        if options.directory is not None:
            with open_private_file(options.directory / "env.sh", "wb") as file:
                file.write("".join(f"{line}\n" for line in self.shell_lines).encode())
        self._reaper = Reaper(self._directory.path)
        self._exit_stack.callback(self._reaper.close)
        self._exit_stack.callback(self._stop_workers)

    def _runner_environment(self) -> dict[str, str]:
        """What a runner's image and secrets would give it: the program `ecs-queue`, and the server."""
        path = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)))
        servers = {URL_VARIABLE: self.redis_url, CALL_URL_VARIABLE: self.redis_url}
        return {"PATH": path, **servers, **self._options.ecs.runner_environment}

    def _own_directory(self) -> OwnedDirectory:
        given = self._options.directory
        owned = OwnedDirectory.make_temporary("stack") if given is None else OwnedDirectory.claim(given)
        self._exit_stack.callback(owned.close)
        if given is not None:
            for name in _PRIVATE_DIRECTORIES:
                make_private_directory(given / name)
                # An earlier version let everyone read them; the rest of an existing directory is the user's affair.
                (given / name).chmod(0o700)
        return owned

    def _start_worker(self, name: str) -> None:
        assert self._reaper is not None
        command = [sys.executable, "-m", "ecs_queue", "worker", "--name", name, *self._options.worker_args]
        with ExitStack() as log:
            sink: IO[bytes] | int = subprocess.DEVNULL
            if self._options.directory is not None:
                sink = log.enter_context(open_private_file(self._options.directory / f"{name}.log", "ab"))
            self._workers[name] = self._reaper.spawn(
                command, environment=self.environ, stdout=subprocess.DEVNULL, stderr=sink
            )

    def _await_workers(self) -> None:
        from ecs_queue.config import load_config
        from ecs_queue.ledger import open_ledger

        ledger = open_ledger(load_config(environ=self.environ))
        deadline = time.monotonic() + _READY_SECONDS
        try:
            # By process id: a server that kept its data may still know the workers of an earlier run.
            while set(self.pids.values()) - {worker.pid for worker in ledger.list_workers()}:
                if self.exited_workers():
                    name, code = next(iter(self.exited_workers().items()))
                    raise UsageError(f"the worker {name} ended with status {code}: {self._last_log_line(name)}")
                if time.monotonic() > deadline:
                    raise RetryableError(f"the workers were not ready within {_READY_SECONDS:g} s; try again")
                time.sleep(_POLL_SECONDS)
        finally:
            ledger.close()

    def _last_log_line(self, name: str) -> str:
        if self._options.directory is None:
            return "run `ecs-queue local --dir DIR` to keep its log"
        return last_log_line(self._options.directory / f"{name}.log")

    def _stop_workers(self) -> None:
        for process in self._workers.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self._workers.values():
            end_process(process, max(0.1, deadline - time.monotonic()))
            if self._reaper is not None:
                self._reaper.unwatch_group(process.pid)


def variables_to_unset(exports: Mapping[str, str]) -> list[str]:
    """Return the variables of this process's environment that would contradict those of a stack."""
    return sorted(name for name in os.environ if _must_not_be_inherited(name) and name not in exports)


def shell_lines(exports: Mapping[str, str]) -> list[str]:
    """Return lines that connect the shell from which this process was started to a stack."""
    unset = [f"unset {name}" for name in variables_to_unset(exports)]
    return unset + [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]


def _must_not_be_inherited(name: str) -> bool:
    return (name.startswith(_OWN_PREFIXES) or name in _OWN_NAMES) and name not in _ALLOWED_NAMES


def _without_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """Exempt the local ECS from a configured proxy."""
    if not any(name.lower() in ("http_proxy", "all_proxy") for name in environ):
        return {}
    given = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    exempt = ",".join(part for part in (given, "127.0.0.1") if part)
    return {"no_proxy": exempt, "NO_PROXY": exempt}
