"""The one start/stop contract of everything that runs in a worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from ecs_queue.worker.outages import Outages


class Service(Protocol):
    """`start` and `stop` return at once; `stop` is idempotent; `join` waits for the end and returns whether it came."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def join(self, timeout: float) -> bool: ...


#: No step of a service takes as long: every wait in it is bounded. Seconds.
_MAX_STEP_SECONDS = 900.0


class ThreadService:
    """A `Service` with one thread, on which `_run` returns some time after `_stopping` is set."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """See `Service`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """See `Service`."""
        self._stopping.set()

    def join(self, timeout: float) -> bool:
        """See `Service`."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def find_fault(self) -> str:
        """Return why it does not run although it should; "" when it runs, and before `start` and after `stop`."""
        if self._thread is None or self._stopping.is_set() or self._thread.is_alive():
            return ""
        return f"the thread of {self._name} has ended"

    def _run(self) -> None:
        raise NotImplementedError


class PeriodicService(ThreadService):
    """Runs `step` again and again on its own thread; `step` returns the seconds until its next run.

    An exception of `step` is reported (`Outages`) and does not end the service: the next run is after `error_delay`
    seconds.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        outages: Outages,
        error_delay: float = 1.0,
        finish: Callable[[], None] | None = None,
    ) -> None:
        """`finish` runs on the same thread after the last step."""
        super().__init__(name)
        self._step = step
        self._outages = outages
        self._error_delay = error_delay
        self._finish = finish
        self._step_began_at: float | None = None

    def find_fault(self) -> str:
        """See `ThreadService.find_fault`. A step that does not end is a fault, too."""
        began = self._step_began_at
        if began is not None and time.monotonic() - began > _MAX_STEP_SECONDS:
            return f"{self._name} has hung for {time.monotonic() - began:.0f} s"
        return super().find_fault()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._step_began_at = time.monotonic()
            try:
                delay = self._step()
            except Exception as error:  # noqa: BLE001 - a service that dies silently would stop the whole worker
                self._outages.report_failure(self._name, error)
                delay = self._error_delay
            else:
                self._outages.report_success(self._name)
            self._step_began_at = None
            if delay > 0:
                self._stopping.wait(delay)
        if self._finish is not None:
            try:
                self._finish()
            except Exception as error:  # noqa: BLE001 - no caller is left to handle it
                self._outages.report_failure(self._name, error)
