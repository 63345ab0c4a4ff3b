"""How main containers run: the protocols, and a runner that only waits instead of running a process.

A runner calls its `ContainerListener` from the server's event loop: `on_started` once and then `on_exited` once, or
`on_start_failed` once. `RunningContainer.stop` requests the end; the listener still gets the exit code.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ecs_queue.error_text import error_text
from ecs_queue.payload_repr import PayloadRepr

SIGTERM_EXIT_CODE = 128 + 15


@dataclass(frozen=True, slots=True, repr=False)
class ContainerSpec(PayloadRepr):
    """One main container: argv, complete environment, output file, seconds from SIGTERM to SIGKILL."""

    task_id: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log_path: Path
    stop_timeout: float


class ContainerListener(Protocol):
    """Gets the events of one container."""

    def on_started(self) -> None:
        """The command has started."""

    def on_start_failed(self, reason: str) -> None:
        """The command could not be started; `reason` is ECS's message."""

    def on_exited(self, exit_code: int) -> None:
        """The command has ended; signal n gives the exit code 128 + n."""


class RunningContainer(Protocol):
    """A container that was started."""

    def stop(self) -> None:
        """Request its end; SIGKILL follows after the stop timeout. May be called twice."""


class ContainerRunner(Protocol):
    """Runs main containers. All methods are called in the server's event loop."""

    async def open(self) -> None:
        """Prepare; called once before the first start."""

    def start(self, spec: ContainerSpec, listener: ContainerListener) -> RunningContainer:
        """Start the container. Must not block, and must not call the listener before it returns."""
        ...

    async def close(self) -> None:
        """Kill every running container."""


class TimerRunner:
    """Runs no process: a task "runs" for the seconds that its command or environment gives. For load tests.

    `["sleep", "5"]` runs 5 s and exits 0; `["exit", "3"]` exits 3 at once; LOCAL_ECS_SECONDS and LOCAL_ECS_EXIT_CODE
    in the container's environment set both for any command. Every other command runs for `default_seconds` and exits
    0. A stopped task ends at once with 143, as a process that obeys SIGTERM.
    """

    def __init__(self, default_seconds: float = 0.0) -> None:
        self._default_seconds = default_seconds

    async def open(self) -> None:
        """Do nothing."""

    def start(self, spec: ContainerSpec, listener: ContainerListener) -> RunningContainer:
        """Schedule the start and the end."""
        try:
            seconds, exit_code = self._duration_and_exit_code(spec)
        except ValueError as error:
            return _FailedContainer(listener, f"CannotStartContainerError: {error_text(error)}")
        return _TimedContainer(listener, seconds, exit_code)

    async def close(self) -> None:
        """Do nothing: timers end with their loop."""

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
        # A process that is stopped while it starts has started: the listener gets both events in order.
        exit_now = self._exit if self._is_running else self._start_and_exit
        self._timer = asyncio.get_running_loop().call_soon(exit_now, SIGTERM_EXIT_CODE)

    def _start(self, seconds: float, exit_code: int) -> None:
        assert self._listener is not None
        self._is_running = True
        self._timer = asyncio.get_running_loop().call_later(seconds, self._exit, exit_code)
        self._listener.on_started()

    def _start_and_exit(self, exit_code: int) -> None:
        self._start(0.0, exit_code)

    def _exit(self, exit_code: int) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.on_exited(exit_code)


class _FailedContainer:
    __slots__ = ()

    def __init__(self, listener: ContainerListener, reason: str) -> None:
        asyncio.get_running_loop().call_soon(listener.on_start_failed, reason)

    def stop(self) -> None:
        """Do nothing: it fails anyway."""
