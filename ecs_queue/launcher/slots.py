"""The slots of a worker: how many RunTask calls it makes at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ecs_queue.telemetry import Telemetry


class Slots:
    """A pool of threads that counts what it has in hand. Jobs beyond the number of slots wait their turn."""

    def __init__(self, number: int, telemetry: Telemetry) -> None:
        self._number = number
        self._telemetry = telemetry
        self._pool = ThreadPoolExecutor(number, thread_name_prefix="slot")
        self._in_hand = 0
        self._changed = threading.Condition()

    @property
    def in_hand(self) -> int:
        """Jobs that are running or waiting for a slot."""
        return self._in_hand

    @property
    def free(self) -> int:
        """Slots that nothing waits for."""
        return max(0, self._number - self._in_hand)

    @property
    def room(self) -> int:
        """How many more jobs may wait for a slot: as many as there are slots, so that under a backlog of messages,
        which keep every slot busy, other work gets its turn, and no queue of jobs grows without bound."""
        return max(0, 2 * self._number - self._in_hand)

    def submit(self, job: Callable[[], None]) -> None:
        """Run the job on a slot. What it raises is told."""
        with self._changed:
            self._in_hand += 1
        try:
            self._pool.submit(self._run, job)
        except RuntimeError:  # shut down: the job stays with the broker or the ledger, another worker takes it
            self._done()

    def wait_until_idle(self, timeout: float) -> bool:
        """Whether nothing was in hand within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._in_hand == 0, timeout)

    def close(self) -> None:
        """Take no more; what waits for a slot is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:  # noqa: BLE001 - one request must not take a slot with it
            self._telemetry.emit("service.failed", service="slot", reason=f"{type(error).__name__}: {error}")
        finally:
            self._done()

    def _done(self) -> None:
        with self._changed:
            self._in_hand -= 1
            self._changed.notify_all()
