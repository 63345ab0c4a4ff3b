"""What a task's main container really does: a local process, or nothing but time.

A runner calls its ``Report`` from the server's event loop: ``started`` once and then ``ended`` once, or
``failed`` once. ``Run.stop`` asks for the end; the report still says how it ended.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SIGTERM_EXIT_CODE = 128 + 15


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One main container: argv, whole environment, output file, seconds from SIGTERM to SIGKILL."""

    task_id: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log_path: Path
    stop_timeout: float


class ContainerListener(Protocol):
    """What a runner tells the task."""

    def on_started(self) -> None:
        """The command runs."""

    def on_start_failed(self, reason: str) -> None:
        """The command could not be started; ``reason`` is ECS's sentence."""

    def on_exited(self, exit_code: int) -> None:
        """It ran to its end; killed by signal n is 128 + n."""


class RunningContainer(Protocol):
    """One piece of work under way."""

    def stop(self) -> None:
        """Ask it to end; SIGKILL follows after the stop timeout. May be called twice."""


class ContainerRunner(Protocol):
    """Runs main containers. All methods are called in the server's event loop."""

    async def open(self) -> None:
        """Get ready; called once before the first launch."""

    def start(self, spec: ContainerSpec, listener: ContainerListener) -> RunningContainer:
        """Start the work soon; must not block and must not report before it returns."""
        ...

    async def close(self) -> None:
        """End everything that still runs, at once."""


class TimerRunner:
    """Runs no process: a task "runs" for the seconds its command or environment names. For load tests.

    ``["sleep", "5"]`` runs 5 s and exits 0; ``["exit", "3"]`` exits 3 at once; LOCAL_ECS_SECONDS and
    LOCAL_ECS_EXIT_CODE in the container's environment say the same for any command. Everything else runs for
    ``default_seconds`` and exits 0. A stopped task ends at once with 143, as one does that heeds SIGTERM.
    """

    def __init__(self, default_seconds: float = 0.0) -> None:
        self._default_seconds = default_seconds

    async def open(self) -> None:
        """Nothing to get ready."""

    def start(self, spec: ContainerSpec, listener: ContainerListener) -> RunningContainer:
        """Schedule start and end."""
        try:
            seconds, exit_code = self._duration_and_exit_code(spec)
        except ValueError as error:
            return _FailedContainer(listener, f"CannotStartContainerError: {error}")
        return _TimedContainer(listener, seconds, exit_code)

    async def close(self) -> None:
        """Timers end with their loop."""

    def _duration_and_exit_code(self, spec: ContainerSpec) -> tuple[float, int]:
        seconds = float(spec.environment.get("LOCAL_ECS_SECONDS", self._default_seconds))
        exit_code = int(spec.environment.get("LOCAL_ECS_EXIT_CODE", 0))
        match [os.path.basename(spec.command[0]), *spec.command[1:]] if spec.command else []:
            case ["sleep", value]:
                seconds = float(value)
            case ["exit", value]:
                exit_code = int(value)
        return seconds, exit_code


class _TimedContainer:
    __slots__ = ("_is_running", "_listener", "_timer")

    def __init__(self, listener: ContainerListener, seconds: float, exit_code: int) -> None:
        self._listener: ContainerListener | None = listener
        self._is_running = False
        loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle = loop.call_soon(self._start, seconds, exit_code)

    def stop(self) -> None:
        self._timer.cancel()
        # A process that is stopped while it starts has started: the report keeps its order.
        then = self._exit if self._is_running else self._start_and_exit
        self._timer = asyncio.get_running_loop().call_soon(then, SIGTERM_EXIT_CODE)

    def _start(self, seconds: float, exit_code: int) -> None:
        assert self._listener is not None
        self._is_running = True
        self._timer = asyncio.get_running_loop().call_later(seconds, self._exit, exit_code)
        self._listener.on_started()

    def _start_and_exit(self, exit_code: int) -> None:
        self._start(0.0, exit_code)

    def _exit(self, exit_code: int) -> None:
        report, self._listener = self._listener, None
        if report is not None:
            report.on_exited(exit_code)


class _FailedContainer:
    __slots__ = ()

    def __init__(self, listener: ContainerListener, reason: str) -> None:
        asyncio.get_running_loop().call_soon(listener.on_start_failed, reason)

    def stop(self) -> None:
        """It fails anyway."""
