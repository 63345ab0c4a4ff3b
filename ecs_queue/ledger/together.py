"""Lets threads share round trips: calls that come while one is under way go together with the next.

Nobody waits for company: a lone call goes at once. The more threads call, the more calls a trip has. A trip that takes
long, because its connection is dead, delays those that wait for it by no more than a moment: they go without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ecs_queue.errors import LedgerUnavailable

#: An operation's name and its arguments.
Call = tuple[Any, ...]

#: After so many seconds the trip under way is not waited for any more; usually it takes about a millisecond.
_OVERDUE = 0.2


class _Passenger:
    """One thread's call. `turn` is released when there is its answer, or when it is to lead the next trip."""

    __slots__ = ("answer", "call", "error", "leads", "turn")

    def __init__(self, call: Call, *, leads: bool) -> None:
        self.call = call
        self.leads = leads
        self.answer: Any = None
        self.error: BaseException | None = None
        self.turn = threading.Lock()
        self.turn.acquire()


class Together:
    """Thread-safe. `send`: carries calls to the server, an answer for each; `most`: calls of one trip."""

    def __init__(self, send: Callable[[Sequence[Call]], list[Any]], most: int, overdue: float = _OVERDUE) -> None:
        """`overdue`: seconds after which a trip is not waited for any more."""
        self._send = send
        self._most = most
        self._overdue = overdue
        self._lock = threading.Lock()
        self._waiting: list[_Passenger] = []
        self._leader: _Passenger | None = None  # of the trip that others wait for

    def run(self, call: Call) -> Any:
        """The answer to this call. What `send` raises fails all calls of its trip: LedgerUnavailable, but for whoever
        led it."""
        with self._lock:
            mine = _Passenger(call, leads=self._leader is None)
            if mine.leads:
                self._leader = mine
            else:
                self._waiting.append(mine)
        try:
            if not mine.leads:
                self._wait(mine)
            if mine.leads:
                return self._lead(mine)
        finally:
            self._leave(mine)
        if mine.error is not None:  # an exception of one's own: the others' must not be raised in two threads
            raise LedgerUnavailable(str(mine.error) or type(mine.error).__name__) from mine.error
        return mine.answer

    def _wait(self, mine: _Passenger) -> None:
        """Until there is an answer, or `mine` is to lead."""
        if mine.turn.acquire(timeout=self._overdue):
            return
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
                self._leader = mine
                mine.leads = True
        if not mine.leads:  # on a trip by now, or made a leader at this moment
            mine.turn.acquire()

    def _lead(self, mine: _Passenger) -> Any:
        with self._lock:
            others, self._waiting = self._waiting[: self._most - 1], self._waiting[self._most - 1 :]
        try:
            own, *answers = self._send([mine.call, *(one.call for one in others)])
            for one, answer in zip(others, answers, strict=True):
                one.answer = answer
        except BaseException as error:
            for one in others:
                one.error = error
            raise
        finally:
            self._leave(mine)  # before the others are woken: the next trip need not wait for them
            for one in others:
                one.turn.release()
        return own

    def _leave(self, mine: _Passenger) -> None:
        """Whatever has happened, nobody is left waiting for `mine`."""
        with self._lock:
            if mine in self._waiting:  # interrupted
                self._waiting.remove(mine)
            if self._leader is mine:
                self._leader = self._waiting.pop(0) if self._waiting else None
                if self._leader is not None:
                    self._leader.leads = True
                    self._leader.turn.release()
