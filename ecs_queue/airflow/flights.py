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
    taken_from: the owner from whom it was adopted. unwanted_since: when Airflow's database first said that no task
    waits for it, monotonic; None: one does. stopping: it is being stopped for that.
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
    unwanted_since: float | None = None
    stopping: bool = False


@dataclass(slots=True, eq=False)
class Report:
    """A result that the scheduler was told of, kept until it is sure that it has taken it in.

    told_at: monotonic. With `is_held` it is the time until which it is not told: Airflow is about to see to the task.
    """

    flight: Flight
    result: TaskResult
    told_at: float
    is_held: bool = False


class Flights:
    """At most one request a key: a task that is queued again (after a deferral, say) leaves its old request behind."""

    def __init__(self) -> None:
        self._by_id: dict[str, Flight] = {}
        self._by_key: dict[Hashable, Flight] = {}

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


class Rota:
    """All accepted flights in turn, a few at a time."""

    def __init__(self, flights: Flights) -> None:
        self._flights = flights
        self._turn: deque[str] = deque()

    def some(self, limit: int) -> list[Flight]:
        """The next ones, at most `limit`; fewer at the end of a turn."""
        if not self._turn:
            self._turn.extend(flight.id for flight in self._flights)
        chosen: list[Flight] = []
        while self._turn and len(chosen) < limit:
            flight = self._flights.of_id(self._turn.popleft())
            if flight is not None and flight.accepted:
                chosen.append(flight)
        return chosen
