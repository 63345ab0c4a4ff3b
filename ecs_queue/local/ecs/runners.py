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

STOPPED_BY_SIGTERM = 128 + 15


@dataclass(frozen=True, slots=True)
class Work:
    """One main container: argv, whole environment, output file, seconds from SIGTERM to SIGKILL."""

    task_id: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log_path: Path
    stop_timeout: float


class Report(Protocol):
    """What a runner tells the task."""

    def started(self) -> None:
        """The command runs."""

    def failed(self, reason: str) -> None:
        """The command could not be started; ``reason`` is ECS's sentence."""

    def ended(self, exit_code: int) -> None:
        """It ran to its end; killed by signal n is 128 + n."""


class Run(Protocol):
    """One piece of work under way."""

    def stop(self) -> None:
        """Ask it to end; SIGKILL follows after the stop timeout. May be called twice."""


class Runner(Protocol):
    """Runs main containers. All methods are called in the server's event loop."""

    async def open(self) -> None:
        """Get ready; called once before the first launch."""

    def launch(self, work: Work, report: Report) -> Run:
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

    def launch(self, work: Work, report: Report) -> Run:
        """Schedule start and end."""
        try:
            seconds, exit_code = self._plan(work)
        except ValueError as error:
            return _TimedFailure(report, f"CannotStartContainerError: {error}")
        return _TimedRun(report, seconds, exit_code)

    async def close(self) -> None:
        """Timers end with their loop."""

    def _plan(self, work: Work) -> tuple[float, int]:
        seconds = float(work.environment.get("LOCAL_ECS_SECONDS", self._default_seconds))
        exit_code = int(work.environment.get("LOCAL_ECS_EXIT_CODE", 0))
        match [os.path.basename(work.command[0]), *work.command[1:]] if work.command else []:
            case ["sleep", value]:
                seconds = float(value)
            case ["exit", value]:
                exit_code = int(value)
        return seconds, exit_code


class _TimedRun:
    __slots__ = ("_report", "_runs", "_timer")

    def __init__(self, report: Report, seconds: float, exit_code: int) -> None:
        self._report: Report | None = report
        self._runs = False
        loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle = loop.call_soon(self._start, seconds, exit_code)

    def stop(self) -> None:
        self._timer.cancel()
        # A process that is stopped while it starts has started: the report keeps its order.
        then = self._end if self._runs else self._start_and_end
        self._timer = asyncio.get_running_loop().call_soon(then, STOPPED_BY_SIGTERM)

    def _start(self, seconds: float, exit_code: int) -> None:
        assert self._report is not None
        self._runs = True
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end, exit_code)
        self._report.started()

    def _start_and_end(self, exit_code: int) -> None:
        self._start(0.0, exit_code)

    def _end(self, exit_code: int) -> None:
        report, self._report = self._report, None
        if report is not None:
            report.ended(exit_code)


class _TimedFailure:
    __slots__ = ()

    def __init__(self, report: Report, reason: str) -> None:
        asyncio.get_running_loop().call_soon(report.failed, reason)

    def stop(self) -> None:
        """It fails anyway."""
