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
_OVERDUE_SECONDS = 0.2


class _PendingCall:
    """One thread's call. `turn` is released when there is its answer, or when it is to lead the next trip."""

    __slots__ = ("call", "error", "is_leader", "result", "wakeup")

    def __init__(self, call: Call, *, leads: bool) -> None:
        self.call = call
        self.is_leader = leads
        self.result: Any = None
        self.error: BaseException | None = None
        self.wakeup = threading.Lock()
        self.wakeup.acquire()


class CallBatcher:
    """Thread-safe. `send`: carries calls to the server, an answer for each; `most`: calls of one trip."""

    def __init__(
        self, send: Callable[[Sequence[Call]], list[Any]], max_batch: int, overdue_seconds: float = _OVERDUE_SECONDS
    ) -> None:
        """`overdue`: seconds after which a trip is not waited for any more."""
        self._send = send
        self._max_batch = max_batch
        self._overdue_seconds = overdue_seconds
        self._lock = threading.Lock()
        self._pending: list[_PendingCall] = []
        self._leader: _PendingCall | None = None  # of the trip that others wait for

    def run(self, call: Call) -> Any:
        """The answer to this call. What `send` raises fails all calls of its trip: LedgerUnavailable, but for whoever
        led it."""
        with self._lock:
            mine = _PendingCall(call, leads=self._leader is None)
            if mine.is_leader:
                self._leader = mine
            else:
                self._pending.append(mine)
        try:
            if not mine.is_leader:
                self._wait(mine)
            if mine.is_leader:
                return self._send_batch(mine)
        finally:
            self._hand_over(mine)
        if mine.error is not None:  # an exception of one's own: the others' must not be raised in two threads
            raise LedgerUnavailable(str(mine.error) or type(mine.error).__name__) from mine.error
        return mine.result

    def _wait(self, pending: _PendingCall) -> None:
        """Until there is an answer, or `mine` is to lead."""
        if pending.wakeup.acquire(timeout=self._overdue_seconds):
            return
        with self._lock:
            if pending in self._pending:
                self._pending.remove(pending)
                self._leader = pending
                pending.is_leader = True
        if not pending.is_leader:  # on a trip by now, or made a leader at this moment
            pending.wakeup.acquire()

    def _send_batch(self, pending: _PendingCall) -> Any:
        with self._lock:
            others, self._pending = self._pending[: self._max_batch - 1], self._pending[self._max_batch - 1 :]
        try:
            own, *answers = self._send([pending.call, *(one.call for one in others)])
            for one, answer in zip(others, answers, strict=True):
                one.result = answer
        except BaseException as error:
            for one in others:
                one.error = error
            raise
        finally:
            self._hand_over(pending)  # before the others are woken: the next trip need not wait for them
            for one in others:
                one.wakeup.release()
        return own

    def _hand_over(self, pending: _PendingCall) -> None:
        """Whatever has happened, nobody is left waiting for `mine`."""
        with self._lock:
            if pending in self._pending:  # interrupted
                self._pending.remove(pending)
            if self._leader is pending:
                self._leader = self._pending.pop(0) if self._pending else None
                if self._leader is not None:
                    self._leader.is_leader = True
                    self._leader.wakeup.release()
