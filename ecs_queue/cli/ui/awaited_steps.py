"""Shows on a terminal which steps an awaited request has reached."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ecs_queue.errors import EcsQueueError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.client.handle import Handle
    from ecs_queue.messages.result import TaskResult
    from ecs_queue.protocol.record import Record

_POLL_INTERVAL_SECONDS = 0.3


def reached_steps(request: Record | TaskResult) -> list[str]:
    """Return QUEUED, and LAUNCHED and RUNNING where the request came so far, in this order."""
    running = ["RUNNING"] if request.started_at else []
    return ["QUEUED", *(["LAUNCHED"] if request.launched_at or running else []), *running]


class StepLines:
    """Prints each step once, however often the request is launched again. For several threads."""

    def __init__(self, print_line: Callable[[str], None]) -> None:
        self._print_line = print_line
        self._printed: set[str] = set()
        self._lock = threading.Lock()

    def show(self, request: Record | TaskResult) -> None:
        """Print the steps that the request has reached and that were not printed."""
        with self._lock:
            for step in reached_steps(request):
                if step not in self._printed:
                    self._printed.add(step)
                    self._print_line(step)


@contextmanager
def follow_steps(client: EcsQueue, handle: Handle, lines: StepLines) -> Iterator[None]:
    """Read the request's record until the block ends, and print its steps. An outage only delays them."""
    is_over = threading.Event()

    def follow() -> None:
        while not is_over.wait(_POLL_INTERVAL_SECONDS):
            try:
                (record,) = client.ledger.get([handle.id])
            except EcsQueueError:
                continue  # the wait for the result reports it
            if record is not None and not is_over.is_set():
                lines.show(record)

    thread = threading.Thread(target=follow, name="ecs-queue-steps", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(5.0)
