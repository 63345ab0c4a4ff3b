"""The life of one task: PROVISIONING, PENDING, RUNNING, DEPROVISIONING, STOPPED.

Left out are ACTIVATING, DEACTIVATING and STOPPING, which belong to load balancers and services. Only the main
container really runs; sidecars are containers that run exactly as long as it does and exit with 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ecs_queue.local.ecs.options import LocalEcsOptions
from ecs_queue.local.ecs.runners import Run, Runner, Work
from ecs_queue.local.ecs.tasks import LocalTask

USER_INITIATED = "UserInitiated"
INJECTED_START_FAILURE = (
    "CannotPullContainerError: pull image manifest has been retried 5 time(s): "
    "a start failure injected by the local ECS"
)


class TaskLife:
    """Drives one task; it is the ``Report`` that its runner talks to. Lives in the server's event loop."""

    __slots__ = ("_clock", "_on_stopped", "_options", "_run", "_runner", "_task", "_timer", "_work")

    def __init__(
        self,
        task: LocalTask,
        work: Work,
        runner: Runner,
        options: LocalEcsOptions,
        clock: Callable[[], float],
        on_stopped: Callable[[LocalTask], None],
    ) -> None:
        self._task = task
        self._work = work
        self._runner = runner
        self._options = options
        self._clock = clock
        self._on_stopped = on_stopped
        self._run: Run | None = None
        self._timer: asyncio.Handle | None = None

    def begin(self) -> None:
        """Lead to the start of the command."""
        self._after(self._options.startup_delay_seconds / 2, self._pend, self._launch)

    def begin_and_fail(self) -> None:
        """Lead to a start that fails."""
        delay = self._options.startup_delay_seconds / 2
        self._after(delay, self._pend, lambda: self.failed(INJECTED_START_FAILURE))

    def stop(self, reason: str) -> None:
        """StopTask. A task that ends already keeps its own reason."""
        body = self._task.body
        if body["desiredStatus"] == "STOPPED":
            return
        self._task.tags = []  # StopTask deletes the tags
        self._task.change(
            desiredStatus="STOPPED", stopCode=USER_INITIATED, stoppedReason=reason, stoppingAt=self._clock()
        )
        if self._run is not None:
            self._run.stop()
            return
        if self._timer is not None:
            self._timer.cancel()
        self._end({}, {})

    def started(self) -> None:
        """The command runs."""
        now = self._clock()
        running = {"lastStatus": "RUNNING", "healthStatus": "UNKNOWN"}
        self._task.change_containers(running, running)
        self._task.change(lastStatus="RUNNING", pullStoppedAt=now, startedAt=now)

    def failed(self, reason: str) -> None:
        """The command could not be started."""
        self._reason("TaskFailedToStart", reason)
        self._end({"reason": reason}, {})

    def ended(self, exit_code: int) -> None:
        """The command ran to its end."""
        self._reason("EssentialContainerExited", "Essential container in task exited")
        self._end({"exitCode": exit_code}, {"exitCode": 0}, executionStoppedAt=self._clock())

    def _pend(self, launch: Callable[[], None]) -> None:
        self._task.change_containers({"lastStatus": "PENDING"}, {"lastStatus": "PENDING"})
        self._task.change(lastStatus="PENDING", pullStartedAt=self._clock())
        self._after(self._options.startup_delay_seconds / 2, launch)

    def _launch(self) -> None:
        self._timer = None
        self._run = self._runner.launch(self._work, self)

    def _reason(self, stop_code: str, reason: str) -> None:
        """The end came by itself, unless somebody asked for it."""
        if self._task.body["desiredStatus"] != "STOPPED":
            self._task.body.update(
                desiredStatus="STOPPED", stopCode=stop_code, stoppedReason=reason, stoppingAt=self._clock()
            )

    def _end(self, main: dict[str, Any], sidecars: dict[str, Any], **members: Any) -> None:
        stopped = {"lastStatus": "STOPPED"}
        self._task.change_containers({**stopped, **main}, {**stopped, **sidecars})
        self._task.change(lastStatus="DEPROVISIONING", **members)
        self._run = None
        self._after(self._options.shutdown_delay_seconds, self._stopped)

    def _stopped(self) -> None:
        self._task.change(lastStatus="STOPPED", stoppedAt=self._clock())
        self._on_stopped(self._task)

    def _after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        loop = asyncio.get_running_loop()
        if seconds > 0:
            self._timer = loop.call_later(seconds, call, *arguments)
        else:
            self._timer = loop.call_soon(call, *arguments)
