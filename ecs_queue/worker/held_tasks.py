"""Young tasks that this worker polls from memory: for some polls their records are not read from the ledger again.

In the ledger such a record is due when the worker lets its task go; then any worker leases it. Until then this worker
polls with the record that it remembers. Every update is a compare-and-set, so an outdated record only makes the update
fail.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from ecs_queue.protocol.polling import hold_seconds
from ecs_queue.protocol.record import Record

#: The largest number of tasks that are held: more take memory, and are polled rarely anyway.
_MAX_HELD = 5000


class HeldTask(NamedTuple):
    """A task that is polled from memory.

    Attributes:
        record: As this worker knows it, without its payload.
        target: Where the task is, encoded; verified when it was held.
        until: When the ledger has the record due. Seconds of the worker's monotonic clock.
    """

    record: Record
    target: str
    until: float


class HeldTasks:
    """Thread-safe: launches add tasks, the poller takes those that are due."""

    def __init__(self, monotonic: Callable[[], float], lease_seconds: float, *, is_enabled: bool = True) -> None:
        """Hold nothing yet; with `is_enabled` false, nothing ever: where events report what becomes of tasks."""
        self._monotonic = monotonic
        self._lease_seconds = lease_seconds
        self._is_enabled = is_enabled
        self._lock = threading.Lock()
        self._tasks: dict[str, HeldTask] = {}  # by id of the record
        self._next_polls: list[tuple[float, int, HeldTask]] = []  # a heap; a task that was replaced is skipped
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._tasks)

    def ledger_wait(self, record: Record, wait: float) -> float:
        """Return the seconds after which the ledger is to have the record due, whose task is polled in `wait` seconds.

        They are more than `wait` when the task is to be held meanwhile. A record that is to be stopped is not held, nor
        one of a runner, whose run decides, nor one whose header only its arguments have.
        """
        is_ordinary = record.spec_version and not (record.run or record.stop_requested_by)
        if not (self._is_enabled and is_ordinary) or len(self._tasks) >= _MAX_HELD:
            return wait
        return hold_seconds(wait, self._lease_seconds)

    def hold(self, record: Record, target: str, wait: float, until: float) -> None:
        """Poll the task in `wait` seconds from memory, unless that is not before `until`."""
        next_poll_at = self._monotonic() + wait
        if next_poll_at >= until:
            self.let_go(record.id)
            return
        task = HeldTask(msgspec.structs.replace(record, request=b"", args=""), target, until)
        with self._lock:
            if not self._is_enabled:
                return
            self._tasks[record.id] = task
            heapq.heappush(self._next_polls, (next_poll_at, next(self._numbers), task))

    def take_due(self) -> dict[str, list[Record]]:
        """Return the records that are to be polled now, by their encoded target.

        Each stays held; `poll_again` or `let_go` follows.
        """
        found: dict[str, list[Record]] = {}
        now = self._monotonic()
        with self._lock:
            while self._next_polls and self._next_polls[0][0] <= now:
                task = heapq.heappop(self._next_polls)[2]
                if self._tasks.get(task.record.id) is task:
                    found.setdefault(task.target, []).append(task.record)
        return found

    def poll_again(self, record_id: str, wait: float) -> bool:
        """Poll a held task again in `wait` seconds; let it go when the ledger has it due before.

        Returns:
            Whether it was held, so that nothing is to be written.
        """
        next_poll_at = self._monotonic() + wait
        with self._lock:
            task = self._tasks.get(record_id)
            if task is None:
                return False
            if next_poll_at < task.until:
                heapq.heappush(self._next_polls, (next_poll_at, next(self._numbers), task))
            else:
                del self._tasks[record_id]
        return True

    def let_go(self, record_id: str) -> None:
        """Poll the task from memory no longer."""
        with self._lock:
            self._tasks.pop(record_id, None)

    def forget_old(self) -> None:
        """Let go what the ledger has had due for long, after an error in between."""
        now = self._monotonic()
        with self._lock:
            self._tasks = {record_id: task for record_id, task in self._tasks.items() if task.until > now}

    def close(self) -> list[str]:
        """Hold nothing any more; return the ids of the records that were held."""
        with self._lock:
            self._is_enabled = False
            ids = list(self._tasks)
            self._tasks.clear()
            self._next_polls.clear()
        return ids
