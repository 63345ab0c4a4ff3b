"""Lets threads share round trips: calls that come while one is under way go together with the next.

Nobody waits for company: a lone call goes at once. One trip of a kind is under way at a time, so the more threads call,
the more calls a trip has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ecs_queue.errors import LedgerUnavailable

#: An operation's name and its arguments.
Call = tuple[Any, ...]


class _Passenger:
    """One thread's call. `turn` is released when there is its answer, or when it is to lead the next trip."""

    __slots__ = ("answer", "call", "error", "leads", "turn")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.answer: Any = None
        self.error: Exception | None = None
        self.leads = False
        self.turn = threading.Lock()
        self.turn.acquire()


class Together:
    """Thread-safe. `send`: carries calls to the server, an answer for each; `most`: calls of one trip."""

    def __init__(self, send: Callable[[Sequence[Call]], list[Any]], most: int) -> None:
        self._send = send
        self._most = most
        self._lock = threading.Lock()
        self._waiting: list[_Passenger] = []
        self._under_way = False

    def run(self, call: Call) -> Any:
        """The answer to this call. What `send` raises is raised to everybody whose call was on that trip.

        It takes as long as two trips at most.
        """
        mine = _Passenger(call)
        with self._lock:
            if self._under_way:
                self._waiting.append(mine)
            else:
                self._under_way = mine.leads = True
        if not mine.leads:
            mine.turn.acquire()
        if mine.leads:
            self._lead(mine)
        if mine.error is not None:
            raise mine.error
        return mine.answer

    def _lead(self, mine: _Passenger) -> None:
        with self._lock:
            others, self._waiting = self._waiting[: self._most - 1], self._waiting[self._most - 1 :]
        trip = [mine, *others]
        try:
            for one, answer in zip(trip, self._send([one.call for one in trip]), strict=True):
                one.answer = answer
        except BaseException as error:
            shared = error if isinstance(error, Exception) else LedgerUnavailable("the ledger's caller was interrupted")
            for one in trip:
                one.error = shared
            if shared is not error:
                raise
        finally:
            self._pass_on()
            for one in others:
                one.turn.release()

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                following = self._waiting.pop(0)
                following.leads = True
                following.turn.release()
            else:
                self._under_way = False
