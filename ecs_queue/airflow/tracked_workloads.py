"""What the executor has under way: which request belongs to which of Airflow's keys. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from ecs_queue.client.producer import PreparedRequest
from ecs_queue.messages.envelope import TaskResult


@dataclass(slots=True, eq=False)
class TrackedWorkload:
    """One workload and its request.

    task: the task instance's own id, None for callbacks and connection tests. source: the workload it was made of.
    minted: the id is ours, Airflow has to be told. draft: the envelope, kept until the ledger is known to keep it.
    accepted: the ledger has it. put_at: when, monotonic. stray: adopted while the ledger could not be asked.
    taken_from: the owner from whom it was adopted. unwanted_since: when Airflow's database first said that no task
    waits for it, monotonic; None: one does. stopping: it is being stopped for that.
    """

    key: Hashable
    request_id: str
    task_instance_id: str | None = None
    workload: object = field(default=None, repr=False)  # its token is a secret
    id_generated: bool = False
    prepared_request: PreparedRequest | None = field(default=None, repr=False)
    is_accepted: bool = False
    put_at: float = 0.0
    adoption_pending: bool = False
    previous_owner: str = ""
    obsolete_since: float | None = None
    stop_requested: bool = False


@dataclass(slots=True, eq=False)
class UnconfirmedResult:
    """A result that the scheduler was told of, kept until it is sure that it has taken it in.

    told_at: monotonic. With `is_held` it is the time until which it is not told: Airflow is about to see to the task.
    """

    tracked: TrackedWorkload
    result: TaskResult
    report_at: float
    is_withheld: bool = False


class TrackedWorkloads:
    """At most one request a key: a task that is queued again (after a deferral, say) leaves its old request behind."""

    def __init__(self) -> None:
        self._by_id: dict[str, TrackedWorkload] = {}
        self._by_key: dict[Hashable, TrackedWorkload] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[TrackedWorkload]:
        return iter(list(self._by_id.values()))

    def add(self, tracked: TrackedWorkload) -> None:
        """Take it up, in place of an earlier one of its key."""
        self.drop(tracked.key)
        self._by_key[tracked.key] = tracked
        self._by_id[tracked.request_id] = tracked

    def drop(self, key: Hashable) -> TrackedWorkload | None:
        """Forget the key's request; the flight, if there was one."""
        flight = self._by_key.pop(key, None)
        if flight is not None:
            self._by_id.pop(flight.request_id, None)
        return flight

    def get_by_key(self, key: Hashable) -> TrackedWorkload | None:
        """The key's present request."""
        return self._by_key.get(key)

    def get_by_request_id(self, request_id: str) -> TrackedWorkload | None:
        """The flight of a request; None when it is nobody's any more."""
        return self._by_id.get(request_id)


class RoundRobin:
    """All accepted flights in turn, a few at a time."""

    def __init__(self, tracked_workloads: TrackedWorkloads) -> None:
        self._tracked_workloads = tracked_workloads
        self._remaining_ids: deque[str] = deque()

    def next_batch(self, limit: int) -> list[TrackedWorkload]:
        """The next ones, at most `limit`; fewer at the end of a turn."""
        if not self._remaining_ids:
            self._remaining_ids.extend(flight.request_id for flight in self._tracked_workloads)
        chosen: list[TrackedWorkload] = []
        while self._remaining_ids and len(chosen) < limit:
            flight = self._tracked_workloads.get_by_request_id(self._remaining_ids.popleft())
            if flight is not None and flight.is_accepted:
                chosen.append(flight)
        return chosen
