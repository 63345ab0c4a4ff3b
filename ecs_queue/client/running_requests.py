"""Which of the awaited requests run, as their records were last read: it costs no read of its own."""

from __future__ import annotations

from ecs_queue.client.result_verification import ResultKey
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State


class RunningRequests:
    """The requests whose containers run. Of thousands that are awaited, each record is read once in a while.

    One thread writes; `len` is for any thread.
    """

    def __init__(self) -> None:
        self._running: set[ResultKey] = set()

    def __len__(self) -> int:
        """Return how many run."""
        return len(self._running)

    def note(self, key: ResultKey, record: Record | None) -> None:
        """Take what was read of the record of an awaited request."""
        if record is not None and record.state is State.LAUNCHED and record.started_at:
            self._running.add(key)
        else:
            self._running.discard(key)

    def discard(self, key: ResultKey) -> None:
        """Forget a request: it has ended, or is awaited no more."""
        self._running.discard(key)
