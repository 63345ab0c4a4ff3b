"""Runs main containers as local processes: each has a process group, a directory and a log file."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ecs_queue.error_text import error_text
from ecs_queue.local.ecs.container_metadata import VARIABLE as METADATA_VARIABLE
from ecs_queue.local.ecs.runners import ContainerListener, ContainerSpec, RunningContainer
from ecs_queue.local.private_files import OwnedDirectory, open_private_file
from ecs_queue.local.reaper import Reaper, kill_processes_with
from ecs_queue.runs.runner_options import OPTIONS_VARIABLE

_SPAWN_THREADS = 4  # a spawn waits a few ms for the child's exec; more threads gain little


class ProcessRunner:
    """Runs each command as the user who started the server, in its own process group and directory.

    When the main process ends, the rest of its group is killed, as in a container; of a runner (`ecs-queue runner`),
    which starts sessions of its own, every process that has its environment. When the server ends, also by
    SIGKILL, every group is killed (see `ecs_queue.local.reaper`). Not modelled: image, workingDirectory, user,
    secrets, limits of CPU and memory.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._runs: dict[_ContainerProcess, asyncio.Task[None]] = {}
        self._directory: OwnedDirectory | None = None
        self._reaper: Reaper | None = None

    async def open(self) -> None:
        """Make the directory for the tasks' directories and start the reaper."""
        loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(_SPAWN_THREADS, thread_name_prefix="local-ecs-spawn")
        self._directory = OwnedDirectory.make_temporary("tasks")
        self._reaper = await loop.run_in_executor(self._pool, Reaper, self._directory.path)
        self._reaper.watch_directory(self._directory.path)

    def start(self, spec: ContainerSpec, listener: ContainerListener) -> RunningContainer:
        """Start the process in the background."""
        assert self._reaper is not None, "call open() first"
        assert self._directory is not None
        assert self._pool is not None
        run = _ContainerProcess(spec, listener, self._directory.path / spec.task_id, self._reaper, self._pool)
        task = asyncio.get_running_loop().create_task(run.run_to_exit())
        self._runs[run] = task
        task.add_done_callback(lambda _: self._runs.pop(run, None))
        return run

    async def close(self) -> None:
        """Kill every process group, wait for their ends, and remove the directories."""
        for run in self._runs:
            run.kill()
        await asyncio.gather(*self._runs.values(), return_exceptions=True)
        if self._pool is None or self._reaper is None or self._directory is None:
            return
        await asyncio.get_running_loop().run_in_executor(self._pool, self._reaper.close)
        self._pool.shutdown()
        self._directory.close()
        self._pool = self._reaper = self._directory = None


class _ContainerProcess:
    """One process from spawn to exit. Only the spawn is outside the event loop."""

    def __init__(
        self,
        spec: ContainerSpec,
        listener: ContainerListener,
        directory: Path,
        reaper: Reaper,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._spec = spec
        self._listener = listener
        self._directory = directory
        self._reaper = reaper
        self._pool = pool
        self._group: int | None = None
        self._requested_signal: signal.Signals | None = None
        self._kill_timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """Send SIGTERM now (or after the spawn), and SIGKILL after the stop timeout."""
        if self._requested_signal is not None:
            return
        self._requested_signal = signal.SIGTERM
        self._signal(signal.SIGTERM)
        self._kill_timer = asyncio.get_running_loop().call_later(self._spec.stop_timeout, self.kill)

    def kill(self) -> None:
        """Send SIGKILL now, or after the spawn."""
        self._requested_signal = signal.SIGKILL
        self._signal(signal.SIGKILL)

    async def run_to_exit(self) -> None:
        """Spawn the process, wait for its exit, and notify the listener of both."""
        loop = asyncio.get_running_loop()
        try:
            process = await loop.run_in_executor(self._pool, self._spawn)
        except (OSError, ValueError) as error:
            self._listener.on_start_failed(_start_failure_reason(self._spec, error))
        else:
            self._group = process.pid
            self._listener.on_started()
            if self._requested_signal is not None:
                self._signal(self._requested_signal)
            exit_code = await self._wait_for_exit(process)
            if OPTIONS_VARIABLE in self._spec.environment:
                await loop.run_in_executor(
                    self._pool, kill_processes_with, METADATA_VARIABLE, self._spec.environment[METADATA_VARIABLE]
                )
            self._listener.on_exited(128 - exit_code if exit_code < 0 else exit_code)
        finally:
            if self._kill_timer is not None:
                self._kill_timer.cancel()
            await loop.run_in_executor(self._pool, shutil.rmtree, self._directory, True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        if not self._spec.command or not self._spec.command[0]:
            raise ValueError("no command")
        self._directory.mkdir()
        environment = self._spec.environment
        if OPTIONS_VARIABLE in environment:  # what a killed runner leaves in /tmp ends with its container
            environment = {"TMPDIR": str(self._directory), **environment}
        with open_private_file(self._spec.log_path, "ab") as log:
            return self._reaper.spawn(self._spec.command, environment=environment, stdout=log, cwd=self._directory)

    async def _wait_for_exit(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the exit; kill the rest of the group while the zombie still holds its number."""
        try:
            descriptor = os.pidfd_open(process.pid)
        except (AttributeError, OSError):  # not Linux, or a kernel before 5.3
            await _wait_in_thread(process)
        else:
            await _wait_until_readable(descriptor)
        self._signal(signal.SIGKILL)
        self._group = None
        self._reaper.unwatch_group(process.pid)
        return process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._group is not None:
            # PermissionError: on macOS, a group that has only zombies.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, number)


async def _wait_until_readable(descriptor: int) -> None:
    """Wait until a pidfd reports the end of its process, and close it."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def on_readable() -> None:
        loop.remove_reader(descriptor)
        ended.set_result(None)

    loop.add_reader(descriptor, on_readable)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _wait_in_thread(process: subprocess.Popen[bytes]) -> None:
    """Wait without a pidfd."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def wait() -> None:
        process.wait()
        loop.call_soon_threadsafe(ended.set_result, None)

    threading.Thread(target=wait, name=f"local-ecs-wait-{process.pid}", daemon=True).start()
    await ended


def _start_failure_reason(spec: ContainerSpec, error: OSError | ValueError) -> str:
    """ECS's message for a container whose program does not start."""
    program = spec.command[0] if spec.command else ""
    if isinstance(error, OSError) and error.filename not in (None, program):
        cause = f"cannot prepare the task: {error_text(error)}"  # its directory or its log file, not the program
    elif not program:
        cause = "no command specified"
    elif isinstance(error, ValueError):
        cause = f'exec: "{program}": invalid argument: {error_text(error)}'
    elif error.errno == errno.ENOENT and "/" not in program:
        cause = f'exec: "{program}": executable file not found in $PATH'
    elif error.errno == errno.ENOENT:
        cause = f'exec: "{program}": stat {program}: no such file or directory'
    else:
        cause = f'exec: "{program}": {(error.strerror or error_text(error)).lower()}'
    return f"CannotStartContainerError: unable to start container process: {cause}"
