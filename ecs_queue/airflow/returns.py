"""Results on their way in: taken, told to the scheduler, told again until it has surely heard, then confirmed."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from ecs_queue.airflow.desk import Desk
from ecs_queue.airflow.flights import Flight, Flights, Report, Rota
from ecs_queue.core.envelope import TaskResult, result_of
from ecs_queue.core.protocol import Word
from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.crashpoints import reach

#: How often the ledger is asked for results whose messages were lost, and about some outstanding requests. Seconds.
ASK_EVERY = 2.0
_RESULTS_AT_ONCE = 500
_REQUESTS_AT_ONCE = 200
#: How often the database is asked whether the scheduler has taken in what it was told. Seconds.
VERIFY_EVERY = 3.0
_VERIFIED_AT_ONCE = 500
#: A report that the scheduler never takes in is given up after so long: its task has another fate by then. Seconds.
GIVE_UP_AFTER = 600.0
#: A server that loses its last second has kept what was put longer ago. Seconds.
_KEPT_AFTER = 5.0


class ReturnsHost(Protocol):
    """What the executor does with a result."""

    def take_off(self, flight: Flight) -> None:
        """The ledger has it after all: no longer queued, but running."""
        ...

    def tell(self, flight: Flight, result: TaskResult, *, first: bool) -> None:
        """Tell the scheduler how it ended."""
        ...

    def hold(self, flight: Flight, result: TaskResult) -> None:
        """It never started, and Airflow itself is about to queue it again: no longer running, and nothing told."""
        ...

    def is_told(self, key: Hashable) -> bool:
        """Whether the scheduler has collected what it was told of this key."""
        ...

    def is_lost(self, flight: Flight) -> None:
        """Nobody will ever say how it ended."""
        ...

    def resend(self, flights: Sequence[Flight]) -> None:
        """The ledger has lost these requests: put them again."""
        ...


class Returns:
    """`unsettled(flights)`: the ids of those whose end the scheduler has not taken in. `clock`: monotonic.

    `hold_seconds`: how long Airflow may take to queue a task again that did not start in time; then it is failed.
    """

    def __init__(
        self,
        desk: Desk,
        flights: Flights,
        host: ReturnsHost,
        unsettled: Callable[[Sequence[Flight]], set[str]],
        hold_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._flights = flights
        self._host = host
        self._unsettled = unsettled
        self._hold_seconds = hold_seconds
        self._rota = Rota(flights)
        self._clock = clock
        self._reports: dict[str, Report] = {}
        self._to_confirm: dict[str, str] = {}  # id -> nonce
        self._to_stop: dict[str, None] = {}
        self._asked_at = float("-inf")
        self._verified_at = float("-inf")

    def __len__(self) -> int:
        """How many results the scheduler was told of and has not surely taken in."""
        return len(self._reports)

    def stop_later(self, request_id: str) -> None:
        """Ask for a stop with the next round; no I/O now, for the caller may hold locks."""
        self._to_stop[request_id] = None

    def hurry(self) -> None:
        """Ask the ledger with the next round."""
        self._asked_at = float("-inf")

    def round(self, deadline: float) -> None:
        """One bounded pass over everything; `deadline`: monotonic. Raises only what the database raises."""
        self.flush()
        for result in self._desk.results(deadline):
            self._take(result)
        if self._clock() - self._asked_at >= ASK_EVERY and not self._desk.closed_for_now:
            self._asked_at = self._clock()
            self._look_for_undelivered()
            self._settle_strays()
            self._compare()
        if self._clock() - self._verified_at >= VERIFY_EVERY:
            self._verified_at = self._clock()
            self._verify()

    def flush(self) -> None:
        """Stops and confirmations that are due."""
        stops = list(self._to_stop)
        if stops and self._desk.stop(stops, "airflow") is not None:
            reach("airflow.stopped")
            for request_id in stops:
                self._to_stop.pop(request_id, None)
        confirms = list(self._to_confirm.items())
        if confirms and self._desk.confirm(confirms) is not None:
            reach("airflow.confirmed")
            for request_id, _ in confirms:
                self._to_confirm.pop(request_id, None)

    def _take(self, result: TaskResult) -> None:
        if result.id in self._reports or result.id in self._to_confirm:
            return
        flight = self._flights.of_id(result.id)
        if flight is None:  # revoked, replaced, or of an earlier life: nobody waits for it
            self._to_confirm[result.id] = result.nonce
            return
        if not flight.accepted:  # the ledger's answer was lost, its effect was not
            flight.accepted = True
            self._host.take_off(flight)
        self._flights.drop(flight.key)
        if result.state == State.EXPIRED and flight.task is not None:
            # A try of the task's own is not to be used up by a container that never started: Airflow's scheduler
            # finds it stuck in queued at this very moment, and queues it again, with a new token.
            self._reports[result.id] = Report(flight, result, self._clock() + self._hold_seconds, is_held=True)
            self._host.hold(flight, result)
            return
        self._reports[result.id] = Report(flight, result, self._clock())
        self._host.tell(flight, result, first=True)

    def _look_for_undelivered(self) -> None:
        for result in self._desk.undelivered(_RESULTS_AT_ONCE + len(self._reports)) or ():
            self._take(result)

    def _compare(self) -> None:
        """Ask about some requests under way, all of them in turn."""
        flights = [flight for flight in self._rota.some(_REQUESTS_AT_ONCE) if not flight.stray]
        lost, regain = [], []
        for flight, record in zip(flights, self._desk.get([f.id for f in flights]) or (), strict=False):
            if record is None:
                lost.append(flight)
            elif record.owner == flight.taken_from and record.owner != self._desk.owner:
                regain.append(flight.id)  # the ledger has lost the adoption
            elif record.owner != self._desk.owner:
                self._let_go(flight)  # another scheduler has adopted it, and its end with it
            elif record.ended:
                self._take(result_of(record))
            elif self._clock() - flight.put_at > _KEPT_AFTER:
                flight.draft = flight.source = None
        if self._desk.adopt(regain):
            reach("airflow.regained")
        self._host.resend([flight for flight in lost if flight.draft is not None])
        for flight in lost:
            if flight.draft is None:
                self._let_go(flight)

    def _settle_strays(self) -> None:
        """Tasks that were adopted while the ledger could not be asked."""
        strays = [flight for flight in self._flights if flight.stray][:_REQUESTS_AT_ONCE]
        if not strays:
            return
        records = self._desk.get([flight.id for flight in strays])
        if records is None or self.adopt(strays, records) is None:
            return
        for flight, record in zip(strays, records, strict=True):
            flight.stray = False
            if record is None:
                self._to_stop[flight.id] = None  # its message may still come
                self._let_go(flight)

    def adopt(self, flights: Sequence[Flight], records: Sequence[Record | None]) -> set[str] | None:
        """Take over those that the ledger knows; their ids. None: the ledger could not be reached."""
        found = [(flight, record) for flight, record in zip(flights, records, strict=True) if record is not None]
        answers = self._desk.adopt([flight.id for flight, _ in found])
        if answers is None:
            return None
        reach("airflow.adopted")
        adopted = set()
        for (flight, record), answer in zip(found, answers, strict=True):
            if answer.word is not Word.MISSING:
                flight.taken_from = record.owner
                adopted.add(flight.id)
        if adopted:
            self.hurry()
        return adopted

    def _let_go(self, flight: Flight) -> None:
        self._flights.drop(flight.key)
        self._host.is_lost(flight)

    def _verify(self) -> None:
        """The scheduler skips events of rows that another one has locked: tell it again what its tasks wait for."""
        now = self._clock()
        due = [report for report in self._reports.values() if self._host.is_told(report.flight.key)]
        due = due[:_VERIFIED_AT_ONCE]
        tasks = [report.flight for report in due if report.flight.task is not None]
        waiting = self._unsettled(tasks) if tasks else set()
        for report in due:
            flight, is_requeued = report.flight, self._flights.of_key(report.flight.key) is not None
            is_over = flight.id not in waiting or now - report.told_at > GIVE_UP_AFTER
            if is_over or (report.is_held and is_requeued):
                del self._reports[flight.id]
                self._to_confirm[flight.id] = report.result.nonce
                reach("airflow.taken_in")
            elif not is_requeued and now >= report.told_at:
                report.is_held = False
                self._host.tell(flight, report.result, first=False)
