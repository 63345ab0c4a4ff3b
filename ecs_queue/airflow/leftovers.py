"""Finds and stops what Airflow no longer waits for.

The scheduler says nothing when a task is cleared, marked, or skipped with its DAG run: its API server refuses what
starts all the same, and tells a running container with its next heartbeat. So what has not started is taken back, and
what runs is left to end itself, and stopped when it does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ecs_queue.airflow.desk import Desk
from ecs_queue.airflow.flights import Flight, Flights, Rota
from ecs_queue.core.record import Record

#: How often Airflow's database is asked. Seconds.
LOOK_EVERY = 5.0
#: Two looks at least this far apart agree before anything is taken back. Seconds.
DOUBT_SECONDS = 4.0
#: The ledger may learn so much later that a launched container runs. Seconds.
UNSEEN_SECONDS = 60.0
_LOOKED_AT_ONCE = 300


class LeftoversHost(Protocol):
    """What the executor does about them."""

    def unsent(self) -> list[Flight]:
        """Tasks that wait in the executor itself, as flights."""
        ...

    def withdraw(self, flight: Flight) -> None:
        """Nothing has started: forget it, and have it revoked should it have been sent."""
        ...

    def cut_short(self, flight: Flight) -> None:
        """A container runs on for nobody: have it stopped; its end is told as any other."""
        ...


class Leftovers:
    """`unwanted(flights)`: the ids of those that no task waits for. `patience`: seconds for a container to end itself.

    `clock`: monotonic.
    """

    def __init__(
        self,
        desk: Desk,
        flights: Flights,
        host: LeftoversHost,
        unwanted: Callable[[Sequence[Flight]], set[str]],
        patience: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._flights = flights
        self._rota = Rota(flights)
        self._host = host
        self._unwanted = unwanted
        self._patience = patience
        self._clock = clock
        self._looked_at = clock()
        self._doubted: dict[str, Flight] = {}

    def round(self) -> None:
        """One bounded look, when one is due. Raises only what the database raises."""
        now = self._clock()
        if now - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = now
        self._look(now)
        doubted = [flight for flight in self._doubted.values() if self._is_sure(flight, now)]
        self._take_back([flight for flight in doubted if not flight.accepted])
        sent = [flight for flight in doubted if flight.accepted and not flight.stopping]
        records = self._desk.get([flight.id for flight in sent])
        for flight, record in zip(sent, records or (), strict=False):
            self._settle(flight, record, now)

    def _look(self, now: float) -> None:
        """Ask about those in doubt and some more."""
        known = [flight for flight in self._doubted.values() if self._is_current(flight)][:_LOOKED_AT_ONCE]
        fresh = [flight for flight in self._rota.some(_LOOKED_AT_ONCE) if flight.task and not flight.stray]
        flights = {flight.id: flight for flight in [*self._host.unsent()[:_LOOKED_AT_ONCE], *known, *fresh]}
        unwanted = self._unwanted(list(flights.values())) if flights else set()
        earlier = self._doubted
        self._doubted = {}
        for request_id in unwanted:
            flight = flights[request_id]
            since = earlier[request_id].unwanted_since if request_id in earlier else None
            flight.unwanted_since = now if since is None else since
            self._doubted[request_id] = flight

    def _is_current(self, flight: Flight) -> bool:
        return self._flights.of_id(flight.id) is flight

    @staticmethod
    def _is_sure(flight: Flight, now: float) -> bool:
        return flight.unwanted_since is not None and now - flight.unwanted_since >= DOUBT_SECONDS

    def _take_back(self, flights: Sequence[Flight]) -> None:
        for flight in flights:
            del self._doubted[flight.id]
            self._host.withdraw(flight)

    def _settle(self, flight: Flight, record: Record | None, now: float) -> None:
        if record is None or record.ended:
            return  # the ledger's own rounds see to it
        waited = now - (flight.unwanted_since or now)
        if record.started_at:
            if waited >= self._patience:
                flight.stopping = True
                self._host.cut_short(flight)
        elif not record.arn or waited >= UNSEEN_SECONDS:
            self._take_back([flight])
