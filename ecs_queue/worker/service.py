"""The one start/stop contract of everything that runs in a worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from ecs_queue.errors import RetryableError
from ecs_queue.telemetry import Telemetry


class Service(Protocol):
    """`start` and `stop` return at once; `stop` is idempotent; `join` waits for the end and returns whether it came."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def join(self, timeout: float) -> bool: ...


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

    def _run(self) -> None:
        raise NotImplementedError


class PeriodicService(ThreadService):
    """Runs `step` again and again on its own thread; `step` returns the seconds until its next run.

    An exception of `step` is reported and does not end the service: the next run is after `error_delay` seconds.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        telemetry: Telemetry,
        error_delay: float = 1.0,
        finish: Callable[[], None] | None = None,
    ) -> None:
        """`finish` runs on the same thread after the last step."""
        super().__init__(name)
        self._step = step
        self._telemetry = telemetry
        self._error_delay = error_delay
        self._finish = finish

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                delay = self._step()
            except RetryableError as error:
                delay = self._report(str(error))
            except Exception as error:  # noqa: BLE001 - a service that dies silently would stop the whole worker
                delay = self._report(f"{type(error).__name__}: {error}")
            if delay > 0:
                self._stopping.wait(delay)
        if self._finish is not None:
            try:
                self._finish()
            except Exception as error:  # noqa: BLE001 - no caller is left to handle it
                self._report(f"{type(error).__name__}: {error}")

    def _report(self, reason: str) -> float:
        self._telemetry.emit("service.failed", service=self._name, reason=reason)
        return self._error_delay
