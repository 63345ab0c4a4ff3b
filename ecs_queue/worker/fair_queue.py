"""Jobs that wait for a thread, in their order: weighted round robin between queues, priority within one.

A queue whose jobs lack a token, or that may launch nothing now, is skipped and delays no other queue.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ecs_queue.worker.rate_limiter import RateLimit

#: The queue of jobs that belong to none: they go before all queues.
NO_QUEUE = ""
#: Ambiguous launches go before all launches of their queue.
AMBIGUOUS_PRIORITY = 10


class JobKind(Enum):
    """Where a job comes from."""

    STOP = "stop"
    RECOVER = "recover"
    RETRY = "retry"
    MESSAGE = "message"


#: Kinds that start something new: the queue's limit and pause hold them back.
_LAUNCH_KINDS = frozenset({JobKind.RETRY, JobKind.MESSAGE})


@dataclass(frozen=True, slots=True)
class Job:
    """`run` uses a token of `rate_limit`, which is taken before; `on_drop` is called when it will not run here.

    `run_without_token` may do it without one: it asks for an idle runner.
    """

    run: Callable[[], object]
    kind: JobKind
    queue: str = NO_QUEUE
    priority: int = 0
    rate_limit: RateLimit | None = None
    on_drop: Callable[[], None] = lambda: None
    run_without_token: Callable[[], None] | None = None


_Heap = list[tuple[int, int, Job]]


class AdmissionControl(Protocol):
    """Holds launches of a queue back."""

    def may_launch(self, queue: str) -> bool: ...

    def launch_started(self, queue: str) -> None: ...


class FairQueue:
    """Not thread-safe. `weight(queue)` is a queue's share relative to the others'."""

    def __init__(self, weight: Callable[[str], float], admission: AdmissionControl) -> None:
        self._weight = weight
        self._admission = admission
        self._order = itertools.count()
        self._heaps: dict[str, dict[RateLimit | None, _Heap]] = {}
        self._waiting: Counter[tuple[str, JobKind]] = Counter()
        self._virtual_starts: dict[str, float] = {}  # queue -> virtual time of its next turn; a turn takes 1 / weight
        self._virtual_now = 0.0

    def __len__(self) -> int:
        return self._waiting.total()

    def waiting(self, queue: str, kind: JobKind) -> int:
        """Return how many jobs of this kind wait."""
        return self._waiting[queue, kind]

    def add(self, job: Job) -> None:
        """Add a job. A queue that was empty does not catch up on the turns that it has missed."""
        heaps = self._heaps.setdefault(job.queue, {})
        if not heaps:
            self._virtual_starts[job.queue] = max(self._virtual_starts.get(job.queue, 0.0), self._virtual_now)
        heapq.heappush(heaps.setdefault(job.rate_limit, []), (-job.priority, next(self._order), job))
        self._waiting[job.queue, job.kind] += 1

    def pop(self, take_token: Callable[[RateLimit | None], bool]) -> Job | None:
        """Return the next job that may run now; `take_token` takes its token and returns whether there was one."""
        for queue in sorted(self._heaps, key=lambda queue: (queue != NO_QUEUE, self._virtual_starts[queue])):
            for rate_limit, heap in sorted(self._heaps[queue].items(), key=lambda item: item[1][0][:2]):
                if not self._is_blocked(heap[0][2]) and take_token(rate_limit):
                    job = heapq.heappop(heap)[2]
                    self._account_for(job)
                    return job
        return None

    def waiting_rate_limits(self) -> dict[RateLimit, int]:
        """Return how many jobs wait only for a token of each rate limit."""
        wanted: Counter[RateLimit] = Counter()
        for heaps in self._heaps.values():
            for rate_limit, heap in heaps.items():
                if rate_limit is not None and not self._is_blocked(heap[0][2]):
                    wanted[rate_limit] += len(heap)
        return wanted

    def remove(self, queue: str, kind: JobKind) -> list[Job]:
        """Remove and return the jobs of this kind, the next one first."""
        found: _Heap = []
        for rate_limit, heap in list(self._heaps.get(queue, {}).items()):
            found += [entry for entry in heap if entry[2].kind is kind]
            left = [entry for entry in heap if entry[2].kind is not kind]
            heapq.heapify(left)
            self._heaps[queue][rate_limit] = left
            self._remove_empty(queue, rate_limit)
        self._waiting[queue, kind] -= len(found)
        return [job for _, _, job in sorted(found)]

    def remove_waiting(self, queue: str) -> Job | None:
        """Remove and return the queue's next job that waits for a token and may do without; None if there is none."""
        for rate_limit, heap in sorted(self._heaps.get(queue, {}).items(), key=lambda item: item[1][0][:2]):
            job = heap[0][2]
            if rate_limit is not None and job.run_without_token is not None and not self._is_blocked(job):
                heapq.heappop(heap)
                self._waiting[queue, job.kind] -= 1
                self._remove_empty(queue, rate_limit)
                return job
        return None

    def clear(self) -> list[Job]:
        """Remove and return all jobs, the next one of each queue first."""
        entries = [entry for heaps in self._heaps.values() for heap in heaps.values() for entry in heap]
        self._heaps.clear()
        self._waiting.clear()
        return [job for _, _, job in sorted(entries)]

    def _is_blocked(self, job: Job) -> bool:
        return job.kind in _LAUNCH_KINDS and not self._admission.may_launch(job.queue)

    def _account_for(self, job: Job) -> None:
        self._waiting[job.queue, job.kind] -= 1
        if job.kind in _LAUNCH_KINDS:
            self._admission.launch_started(job.queue)
        self._virtual_now = max(self._virtual_now, self._virtual_starts[job.queue])
        self._virtual_starts[job.queue] += 1 / self._weight(job.queue) if job.queue != NO_QUEUE else 0.0
        self._remove_empty(job.queue, job.rate_limit)

    def _remove_empty(self, queue: str, rate_limit: RateLimit | None) -> None:
        if not self._heaps[queue][rate_limit]:
            del self._heaps[queue][rate_limit]
        if not self._heaps[queue]:
            del self._heaps[queue]
