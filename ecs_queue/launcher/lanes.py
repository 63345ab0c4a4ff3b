"""What waits for a slot, and whose turn it is: weighted round robin between queues, priority within one.

A queue whose jobs lack a token, or that may launch nothing now, is passed over: it holds nobody else up.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ecs_queue.launcher.quota import Permit

#: Of jobs that are not for any queue: they go before all queues.
NO_QUEUE = ""
#: A launch in doubt goes before all launches of its queue.
IN_DOUBT = 10


class JobKind(Enum):
    """Where a job comes from."""

    STOP = "stop"
    RECOVER = "recover"
    RETRY = "retry"
    MESSAGE = "message"


#: Kinds that start something new: the queue's limit and pause hold them.
_LAUNCHES = frozenset({JobKind.RETRY, JobKind.MESSAGE})


@dataclass(frozen=True, slots=True)
class Job:
    """`permit`: the token that `run` uses, taken before it runs. `drop`: it will not be run here."""

    run: Callable[[], None]
    kind: JobKind
    queue: str = NO_QUEUE
    priority: int = 0
    permit: Permit | None = None
    drop: Callable[[], None] = lambda: None


_Heap = list[tuple[int, int, Job]]


class Gate(Protocol):
    """What holds launches of a queue back."""

    def may_launch(self, queue: str) -> bool: ...

    def started(self, queue: str) -> None: ...


class Lanes:
    """Not thread-safe. `weight(queue)`: its share beside the others'."""

    def __init__(self, weight: Callable[[str], float], gate: Gate) -> None:
        self._weight = weight
        self._gate = gate
        self._order = itertools.count()
        self._heaps: dict[str, dict[Permit | None, _Heap]] = {}
        self._waiting: Counter[tuple[str, JobKind]] = Counter()
        self._turns: dict[str, float] = {}  # when a queue's next turn is, in turns of a queue of weight 1
        self._now = 0.0

    def __len__(self) -> int:
        return self._waiting.total()

    def waiting(self, queue: str, kind: JobKind) -> int:
        """How many of these wait."""
        return self._waiting[queue, kind]

    def add(self, job: Job) -> None:
        """A queue that was empty does not catch up on the turns that it has missed."""
        heaps = self._heaps.setdefault(job.queue, {})
        if not heaps:
            self._turns[job.queue] = max(self._turns.get(job.queue, 0.0), self._now)
        entry = (-job.priority, next(self._order), job)
        heapq.heappush(heaps.setdefault(job.permit, []), entry)
        self._waiting[job.queue, job.kind] += 1

    def pop(self, spend: Callable[[Permit | None], bool]) -> Job | None:
        """The next job that may run now; `spend` takes its token, if there is one here."""
        for queue in self._in_turn():
            for permit, heap in sorted(self._heaps[queue].items(), key=lambda lane: lane[1][0][:2]):
                if self._is_held(heap[0][2]) or not spend(permit):
                    continue
                job = heapq.heappop(heap)[2]
                self._popped(job)
                return job
        return None

    def lacking(self) -> dict[Permit, int]:
        """Permits that jobs wait for which nothing else holds, and how many jobs."""
        wanted: Counter[Permit] = Counter()
        for heaps in self._heaps.values():
            for permit, heap in heaps.items():
                if permit is not None and not self._is_held(heap[0][2]):
                    wanted[permit] += len(heap)
        return wanted

    def remove(self, queue: str, kind: JobKind) -> list[Job]:
        """Take these out, the next one first."""
        found: _Heap = []
        for permit, heap in list(self._heaps.get(queue, {}).items()):
            found += [entry for entry in heap if entry[2].kind is kind]
            left = [entry for entry in heap if entry[2].kind is not kind]
            heapq.heapify(left)
            self._heaps[queue][permit] = left
            self._tidy(queue, permit)
        self._waiting[queue, kind] -= len(found)
        return [job for _, _, job in sorted(found)]

    def clear(self) -> list[Job]:
        """Take everything out, the next of each queue first."""
        entries = [entry for heaps in self._heaps.values() for heap in heaps.values() for entry in heap]
        self._heaps.clear()
        self._waiting.clear()
        return [job for _, _, job in sorted(entries)]

    def _in_turn(self) -> Iterator[str]:
        return iter(sorted(self._heaps, key=lambda queue: (queue != NO_QUEUE, self._turns[queue])))

    def _is_held(self, job: Job) -> bool:
        return job.kind in _LAUNCHES and not self._gate.may_launch(job.queue)

    def _popped(self, job: Job) -> None:
        self._waiting[job.queue, job.kind] -= 1
        if job.kind in _LAUNCHES:
            self._gate.started(job.queue)
        self._now = max(self._now, self._turns[job.queue])
        self._turns[job.queue] += 1 / self._weight(job.queue) if job.queue != NO_QUEUE else 0.0
        self._tidy(job.queue, job.permit)

    def _tidy(self, queue: str, permit: Permit | None) -> None:
        if not self._heaps[queue][permit]:
            del self._heaps[queue][permit]
        if not self._heaps[queue]:
            del self._heaps[queue]
