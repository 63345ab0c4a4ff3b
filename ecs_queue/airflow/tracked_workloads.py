"""Which request belongs to which of Airflow's workloads. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from ecs_queue.client.producer import PreparedRequest
from ecs_queue.messages.result import TaskResult
from ecs_queue.payload_repr import PayloadRepr


@dataclass(slots=True, eq=False, repr=False)
class TrackedWorkload(PayloadRepr):
    """One workload of Airflow and its request.

    Attributes:
        task_instance_id: The task instance's own id; None for callbacks and connection tests.
        workload: The workload that the request was made from.
        id_generated: The request id was generated here, and Airflow's database has not shown it yet.
        assigned_id: The id that Airflow assigned; another request had it.
        prepared_request: The envelope, kept until the ledger has surely stored it.
        is_accepted: The ledger has the request.
        put_at: When it was put, by the monotonic clock.
        adoption_pending: It was adopted while the ledger was unavailable.
        previous_owner: The owner from which it was adopted.
        stop_requested: Its container is being stopped because no task waits for it any more.
    """

    key: Hashable
    request_id: str
    task_instance_id: str | None = None
    workload: object = field(default=None, repr=False)  # its token is a secret
    id_generated: bool = False
    assigned_id: str | None = None
    prepared_request: PreparedRequest | None = field(default=None, repr=False)
    is_accepted: bool = False
    put_at: float = 0.0
    adoption_pending: bool = False
    previous_owner: str = ""
    stop_requested: bool = False


@dataclass(slots=True, eq=False)
class UnconfirmedResult:
    """A result that is kept until Airflow's database shows that the scheduler has processed it.

    Attributes:
        report_at: When it was reported, by the monotonic clock. With `is_withheld`: until when it is not reported,
            because Airflow is about to queue the task again.
    """

    tracked: TrackedWorkload
    result: TaskResult
    report_at: float
    is_withheld: bool = False


class TrackedWorkloads:
    """The requests in progress, at most one for each key: a task that is queued again replaces its old request."""

    def __init__(self) -> None:
        self._by_id: dict[str, TrackedWorkload] = {}
        self._by_key: dict[Hashable, TrackedWorkload] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[TrackedWorkload]:
        return iter(list(self._by_id.values()))

    def add(self, tracked: TrackedWorkload) -> None:
        """Add a workload, in place of an earlier one with the same key."""
        self.drop(tracked.key)
        self._by_key[tracked.key] = tracked
        self._by_id[tracked.request_id] = tracked

    def drop(self, key: Hashable) -> TrackedWorkload | None:
        """Remove and return the key's workload; None when there is none."""
        tracked = self._by_key.pop(key, None)
        if tracked is not None:
            self._by_id.pop(tracked.request_id, None)
        return tracked

    def get_by_key(self, key: Hashable) -> TrackedWorkload | None:
        """Return the key's present workload."""
        return self._by_key.get(key)

    def get_by_request_id(self, request_id: str) -> TrackedWorkload | None:
        """Return the workload of a request; None when the request was dropped or replaced."""
        return self._by_id.get(request_id)


class RoundRobin:
    """Iterates over all accepted workloads again and again, in batches."""

    def __init__(self, tracked_workloads: TrackedWorkloads) -> None:
        self._tracked_workloads = tracked_workloads
        self._remaining_ids: deque[str] = deque()

    def next_batch(self, limit: int) -> list[TrackedWorkload]:
        """Return the next workloads, at most `limit`; fewer at the end of a round. None whose adoption is pending."""
        if not self._remaining_ids:
            self._remaining_ids.extend(tracked.request_id for tracked in self._tracked_workloads)
        batch: list[TrackedWorkload] = []
        while self._remaining_ids and len(batch) < limit:
            tracked = self._tracked_workloads.get_by_request_id(self._remaining_ids.popleft())
            if tracked is not None and tracked.is_accepted and not tracked.adoption_pending:
                batch.append(tracked)
        return batch
