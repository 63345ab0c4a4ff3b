"""Workloads on their way out: made into requests, put into the ledger, announced."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future, wait
from itertools import islice
from typing import Any, Protocol

from ecs_queue.airflow import orders
from ecs_queue.airflow.desk import SEND_AT_ONCE, Desk
from ecs_queue.airflow.flights import Flight, Flights
from ecs_queue.airflow.settings import queue_of
from ecs_queue.core.protocol import Answer, Word
from ecs_queue.crashpoints import reach
from ecs_queue.errors import ConfigError, InvalidRequest

#: A token that is good for less than this is not worth a launch: Airflow queues the task again with a new one. Seconds.
_LEAST_LIFE = 1.0
#: The same complaint about the configuration is not repeated for so long. Seconds.
_COMPLAIN_EVERY = 60.0


class IntakeHost(Protocol):
    """What the executor does with the outcome."""

    def key_of(self, workload: Any) -> Hashable:
        """Airflow's key of a workload."""
        ...

    def take_off(self, flight: Flight) -> None:
        """The ledger has it: no longer queued, but running."""
        ...

    def refuse(self, key: Hashable, reason: str) -> None:
        """It can never run: fail it, alone."""
        ...


class Intake:
    """`clock`: seconds since the epoch, as in the tokens."""

    def __init__(
        self,
        desk: Desk,
        flights: Flights,
        host: IntakeHost,
        log: logging.Logger,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._desk = desk
        self._flights = flights
        self._host = host
        self._log = log
        self._clock = clock
        self._new_id = new_id
        self._defaulted: set[str] = set()
        self._complained_at = float("-inf")

    def take(self, workloads: Sequence[Any]) -> None:
        """Send them; what the ledger does not accept now stays queued, with the very same envelope."""
        if self._desk.closed_for_now:
            return
        with self._desk.hurry():
            conflicts = self._send(self._flight_of(workload) for workload in workloads)
            renamed = (self._renamed(flight) for flight in conflicts if flight.task is not None)
            self._send(renamed)
            self._take_over([flight for flight in conflicts if flight.task is None])

    def resend(self, flights: Sequence[Flight]) -> None:
        """The ledger has lost them at a fail-over: the very same envelopes again."""
        self._send(flights)

    def _send(self, flights: Iterable[Flight | None]) -> list[Flight]:
        """Put and announce each batch while the next is prepared; the flights whose ids another request has."""
        drafted = ((flight, flight.draft) for flight in flights if flight is not None and flight.draft is not None)
        under_way: list[tuple[list[Flight], Future[list[Answer]]]] = []
        try:
            while batch := list(islice(drafted, SEND_AT_ONCE)):
                sending = self._desk.send_soon([draft for _, draft in batch])
                under_way.append(([flight for flight, _ in batch], sending))
        finally:
            wait([sending for _, sending in under_way])
        return [flight for some, sending in under_way for flight in self._settle(some, sending.result())]

    def _settle(self, flights: Sequence[Flight], answers: Sequence[Answer]) -> list[Flight]:
        conflicts: list[Flight] = []
        for flight, answer in zip(flights, answers, strict=False):
            if answer.word is Word.CONFLICT:
                conflicts.append(flight)
            elif answer.word is Word.TOO_LATE:
                self._flights.drop(flight.key)  # an envelope that grew too old in an outage: a new one next time
            else:
                self._accept(flight)
        return conflicts

    def _accept(self, flight: Flight) -> None:
        flight.put_at = time.monotonic()
        if not flight.accepted:
            flight.accepted = True
            self._host.take_off(flight)

    def _take_over(self, flights: Sequence[Flight]) -> None:
        """Callbacks and connection tests have one id for ever: an earlier scheduler has sent these already."""
        for flight, answer in zip(flights, self._desk.adopt([f.id for f in flights]) or (), strict=False):
            if answer.word is not Word.MISSING:
                reach("airflow.taken_over")
                flight.draft = None
                self._accept(flight)

    def _renamed(self, flight: Flight) -> Flight | None:
        """Airflow's id is that of an earlier request (with several executors it does not always assign a new one)."""
        self._flights.drop(flight.key)
        return self._flight_of(flight.source, self._new_id())

    def _flight_of(self, workload: Any, request_id: str | None = None) -> Flight | None:
        """The workload's flight with its draft; None when it cannot be sent (now)."""
        key = self._host.key_of(workload)
        known = self._flights.of_key(key)
        if known is not None and known.source is workload and known.draft is not None:
            return known if self._lives(known.draft.submission.expires_at, key) else None
        try:
            flight = self._prepared(key, workload, request_id)
        except InvalidRequest as error:
            self._host.refuse(key, str(error))
            return None
        except ConfigError as error:
            self._complain(error)
            return None
        except Exception as error:  # noqa: BLE001 - one workload must not keep the others from being sent
            self._log.exception("no request can be made of the workload %s", key)
            self._host.refuse(key, f"no request can be made of it: {type(error).__name__}: {error}")
            return None
        if flight is not None:
            self._flights.add(flight)
        return flight

    def _prepared(self, key: Hashable, workload: Any, request_id: str | None) -> Flight | None:
        task = getattr(workload, "ti", None)
        given = request_id or _id_of(key, task)
        line = self._line(workload, task) | {"id": given or self._new_id()}
        expiry = orders.token_expiry(workload.token)
        if expiry is not None:
            if not self._lives(expiry, key):
                return None
            line["expires_in"] = expiry - self._clock()
        draft = self._desk.prepare(line)
        minted = request_id is not None or given is None
        flight = Flight(key, draft.request.id, source=workload, minted=minted, draft=draft)
        flight.task = None if task is None else str(task.id)
        return flight

    def _lives(self, expires_at: float, key: Hashable) -> bool:
        if expires_at - self._clock() >= _LEAST_LIFE:
            return True
        self._log.info("the token of %s has expired; Airflow will queue it again with a new one", key)
        return False

    def _line(self, workload: Any, task: Any) -> dict[str, Any]:
        config = self._desk.config
        name = getattr(workload if task is None else task, "queue", None)
        queue = queue_of(config, name)
        self._warn_once(name, queue)
        asked = None if task is None else task.executor_config
        return {
            "command": orders.command_of(workload.model_dump_json(), status=task is None),
            "queue": queue,
            "executor_config": orders.with_container_sign(asked, config.profile(queue).container_name),
            "priority": orders.FIRST_PRIORITY if task is None else orders.priority_of(task.priority_weight),
            "relaunch": "never_started",  # once user code may have run, Airflow's own retries decide
        }

    def _warn_once(self, name: str | None, queue: str) -> None:
        if not name or name in self._defaulted or name == queue or queue != "default":
            return
        self._defaulted.add(name)
        self._log.warning(
            "the queue %r has no section [aws_ecs_executor.%s]: its tasks go to the queue 'default'", name, name
        )

    def _complain(self, error: ConfigError) -> None:
        if time.monotonic() - self._complained_at >= _COMPLAIN_EVERY:
            self._complained_at = time.monotonic()
            self._log.error("tasks wait until the configuration is mended: %s", error)


def _id_of(key: Hashable, task: Any) -> str | None:
    """The id that Airflow has chosen for this run of the workload."""
    if task is not None:
        return orders.usable_id(getattr(task, "external_executor_id", None))
    return orders.usable_id(str(key))
