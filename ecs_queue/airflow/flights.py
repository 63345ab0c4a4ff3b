"""What the executor has under way: which request belongs to which of Airflow's keys. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from ecs_queue.client import Submitted
from ecs_queue.core.envelope import TaskResult


@dataclass(slots=True, eq=False)
class Flight:
    """One workload and its request.

    task: the task instance's own id, None for callbacks and connection tests. source: the workload it was made of.
    minted: the id is ours, Airflow has to be told. draft: the envelope, kept until the ledger is known to keep it.
    accepted: the ledger has it. put_at: when, monotonic. stray: adopted while the ledger could not be asked.
    taken_from: the owner from whom it was adopted.
    """

    key: Hashable
    id: str
    task: str | None = None
    source: object = field(default=None, repr=False)  # its token is a secret
    minted: bool = False
    draft: Submitted | None = field(default=None, repr=False)
    accepted: bool = False
    put_at: float = 0.0
    stray: bool = False
    taken_from: str = ""


@dataclass(slots=True, eq=False)
class Report:
    """A result that the scheduler was told of, kept until it is sure that it has taken it in."""

    flight: Flight
    result: TaskResult
    told_at: float


class Flights:
    """At most one request a key: a task that is queued again (after a deferral, say) leaves its old request behind."""

    def __init__(self) -> None:
        self._by_id: dict[str, Flight] = {}
        self._by_key: dict[Hashable, Flight] = {}
        self._turn: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Flight]:
        return iter(list(self._by_id.values()))

    def add(self, flight: Flight) -> None:
        """Take it up, in place of an earlier one of its key."""
        self.drop(flight.key)
        self._by_key[flight.key] = flight
        self._by_id[flight.id] = flight

    def drop(self, key: Hashable) -> Flight | None:
        """Forget the key's request; the flight, if there was one."""
        flight = self._by_key.pop(key, None)
        if flight is not None:
            self._by_id.pop(flight.id, None)
        return flight

    def of_key(self, key: Hashable) -> Flight | None:
        """The key's present request."""
        return self._by_key.get(key)

    def of_id(self, request_id: str) -> Flight | None:
        """The flight of a request; None when it is nobody's any more."""
        return self._by_id.get(request_id)

    def some(self, limit: int) -> list[Flight]:
        """Up to `limit` accepted flights, all of them in turn over several calls."""
        if not self._turn:
            self._turn.extend(self._by_id)
        chosen: list[Flight] = []
        while self._turn and len(chosen) < limit:
            flight = self._by_id.get(self._turn.popleft())
            if flight is not None and flight.accepted:
                chosen.append(flight)
        return chosen
