"""The one start/stop contract of everything that runs in a worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from ecs_queue.errors import RetryableError
from ecs_queue.telemetry import Telemetry


class Service(Protocol):
    """`start` returns at once; `stop` asks for the end and is idempotent; `join` waits for it, and says if it came."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def join(self, timeout: float) -> bool: ...


class PeriodicService:
    """Runs `step` again and again on a thread of its own; `step` answers how many seconds to rest before the next.

    What `step` raises is told and does not end the service: after an error it rests for `rest_after_error` seconds.
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
        self._name = name
        self._step = step
        self._telemetry = telemetry
        self._error_delay = error_delay
        self._finish = finish
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
        while not self._stopping.is_set():
            try:
                rest = self._step()
            except RetryableError as error:
                self._telemetry.emit("service.failed", service=self._name, reason=str(error))
                rest = self._error_delay
            except Exception as error:  # noqa: BLE001 - a service that dies silently would stop the whole worker
                self._telemetry.emit("service.failed", service=self._name, reason=f"{type(error).__name__}: {error}")
                rest = self._error_delay
            if rest > 0:
                self._stopping.wait(rest)
        if self._finish is not None:
            self._run_finish(self._finish)

    def _run_finish(self, finish: Callable[[], None]) -> None:
        try:
            finish()
        except Exception as error:  # noqa: BLE001 - nobody is left who could take it
            self._telemetry.emit("service.failed", service=self._name, reason=f"{type(error).__name__}: {error}")
