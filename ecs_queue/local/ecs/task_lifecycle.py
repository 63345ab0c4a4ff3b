"""The lifecycle of one task: PROVISIONING, PENDING, RUNNING, DEPROVISIONING, STOPPED.

ACTIVATING, DEACTIVATING and STOPPING, which belong to load balancers and services, are not modelled. Only the main
container is executed, the one whose command is overridden; sidecars run as long as it does and exit with 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ecs_queue.local.ecs.options import LocalEcsOptions
from ecs_queue.local.ecs.runners import ContainerRunner, ContainerSpec, RunningContainer
from ecs_queue.local.ecs.tasks import LocalTask

USER_INITIATED = "UserInitiated"


class TaskLifecycle:
    """Drives one task; it is the `ContainerListener` of its container. Used in the server's event loop only."""

    __slots__ = (
        *("_clock", "_container", "_on_stopped", "_options", "_provision_seconds"),
        *("_runner", "_spec", "_task", "_timer"),
    )

    def __init__(
        self,
        task: LocalTask,
        spec: ContainerSpec,
        runner: ContainerRunner,
        options: LocalEcsOptions,
        provision_seconds: float,
        clock: Callable[[], float],
        on_stopped: Callable[[LocalTask], None],
    ) -> None:
        self._task = task
        self._spec = spec
        self._runner = runner
        self._options = options
        self._provision_seconds = provision_seconds
        self._clock = clock
        self._on_stopped = on_stopped
        self._container: RunningContainer | None = None
        self._timer: asyncio.Handle | None = None

    def start(self, start_failure: str | None) -> None:
        """Start the command when its host is provisioned, or let the start fail for this reason."""
        self._schedule(self._provision_seconds / 2, self._enter_pending, start_failure)

    def stop(self, reason: str) -> None:
        """StopTask. A task that is stopping already keeps its reason."""
        if self._task.body["desiredStatus"] == "STOPPED":
            return
        self._task.tags = []  # StopTask deletes the tags
        self._task.update(
            desiredStatus="STOPPED", stopCode=USER_INITIATED, stoppedReason=reason, stoppingAt=self._clock()
        )
        if self._container is not None:
            self._container.stop()
            return
        if self._timer is not None:
            self._timer.cancel()
        self._enter_deprovisioning({}, {})

    def on_started(self) -> None:
        """See `ContainerListener`."""
        now = self._clock()
        running = {"lastStatus": "RUNNING", "healthStatus": "UNKNOWN"}
        self._task.update_containers(running, running)
        self._task.update(lastStatus="RUNNING", pullStoppedAt=now, startedAt=now)

    def on_start_failed(self, reason: str) -> None:
        """See `ContainerListener`."""
        self._set_stop_reason("TaskFailedToStart", reason)
        self._enter_deprovisioning({"reason": reason}, {})

    def on_exited(self, exit_code: int) -> None:
        """See `ContainerListener`."""
        self._set_stop_reason("EssentialContainerExited", "Essential container in task exited")
        self._enter_deprovisioning({"exitCode": exit_code}, {"exitCode": 0}, executionStoppedAt=self._clock())

    def _enter_pending(self, start_failure: str | None) -> None:
        self._task.update_containers({"lastStatus": "PENDING"}, {"lastStatus": "PENDING"})
        self._task.update(lastStatus="PENDING", pullStartedAt=self._clock())
        self._schedule(self._provision_seconds / 2, self._start_container, start_failure)

    def _start_container(self, start_failure: str | None) -> None:
        if start_failure is not None:
            self.on_start_failed(start_failure)
            return
        self._timer = None
        self._container = self._runner.start(self._spec, self)

    def _set_stop_reason(self, stop_code: str, reason: str) -> None:
        """Set the reason of an end that was not requested."""
        if self._task.body["desiredStatus"] != "STOPPED":
            self._task.body.update(
                desiredStatus="STOPPED", stopCode=stop_code, stoppedReason=reason, stoppingAt=self._clock()
            )

    def _enter_deprovisioning(self, main: dict[str, Any], sidecars: dict[str, Any], **members: Any) -> None:
        stopped = {"lastStatus": "STOPPED"}
        self._task.update_containers({**stopped, **main}, {**stopped, **sidecars})
        self._task.update(lastStatus="DEPROVISIONING", **members)
        self._container = None
        self._schedule(self._options.shutdown_delay_seconds, self._enter_stopped)

    def _enter_stopped(self) -> None:
        self._task.update(lastStatus="STOPPED", stoppedAt=self._clock())
        self._on_stopped(self._task)

    def _schedule(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, call, *arguments) if seconds > 0 else loop.call_soon(call, *arguments)
