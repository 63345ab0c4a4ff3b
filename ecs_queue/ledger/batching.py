"""Lets threads share round trips: calls that arrive during one round trip are sent together in the next.

A lone call is sent immediately. The more threads call, the more calls a round trip carries. A slow round trip, for
example on a dead connection, delays waiting calls only briefly: then they are sent without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ecs_queue.errors import LedgerUnavailable

#: An operation's name and its arguments.
Call = tuple[Any, ...]

#: Seconds that a call waits for the round trip in progress, which usually takes about a millisecond.
_OVERDUE_SECONDS = 0.2


class _PendingCall:
    """One thread's call. `wakeup` is released when its reply is there, or when it must lead the next round trip."""

    __slots__ = ("call", "error", "is_leader", "result", "wakeup")

    def __init__(self, call: Call, *, is_leader: bool) -> None:
        self.call = call
        self.is_leader = is_leader
        self.result: Any = None
        self.error: BaseException | None = None
        self.wakeup = threading.Lock()
        self.wakeup.acquire()


class CallBatcher:
    """Thread-safe.

    Args:
        send: Sends calls to the server in one round trip and returns a reply for each.
        max_batch: Maximum number of calls in one round trip.
        overdue_seconds: How long a call waits for the round trip in progress.
    """

    def __init__(
        self, send: Callable[[Sequence[Call]], list[Any]], max_batch: int, overdue_seconds: float = _OVERDUE_SECONDS
    ) -> None:
        self._send = send
        self._max_batch = max_batch
        self._overdue_seconds = overdue_seconds
        self._lock = threading.Lock()
        self._pending: list[_PendingCall] = []
        self._leader: _PendingCall | None = None  # of the round trip that others wait for

    def run(self, call: Call) -> Any:
        """Return the reply to this call.

        Raises:
            LedgerUnavailable: The round trip failed; it fails all its calls. The leader raises what `send` raised.
        """
        with self._lock:
            pending = _PendingCall(call, is_leader=self._leader is None)
            if pending.is_leader:
                self._leader = pending
            else:
                self._pending.append(pending)
        try:
            if not pending.is_leader:
                self._wait(pending)
            if pending.is_leader:
                return self._send_batch(pending)
        finally:
            self._hand_over(pending)
        if pending.error is not None:  # a new exception in each thread
            raise LedgerUnavailable(str(pending.error) or type(pending.error).__name__) from pending.error
        return pending.result

    def _wait(self, pending: _PendingCall) -> None:
        """Wait for the reply, or to become the leader."""
        if pending.wakeup.acquire(timeout=self._overdue_seconds):
            return
        with self._lock:
            if pending in self._pending:
                self._pending.remove(pending)
                self._leader = pending
                pending.is_leader = True
        if not pending.is_leader:  # being sent by now, or just made the leader
            pending.wakeup.acquire()

    def _send_batch(self, pending: _PendingCall) -> Any:
        with self._lock:
            others, self._pending = self._pending[: self._max_batch - 1], self._pending[self._max_batch - 1 :]
        try:
            own, *replies = self._send([pending.call, *(other.call for other in others)])
            for other, reply in zip(others, replies, strict=True):
                other.result = reply
        except BaseException as error:
            for other in others:
                other.error = error
            raise
        finally:
            self._hand_over(pending)  # before the others wake up: the next round trip need not wait for them
            for other in others:
                other.wakeup.release()
        return own

    def _hand_over(self, pending: _PendingCall) -> None:
        """Make the next pending call the leader, so that no call waits for this one, whatever happened to it."""
        with self._lock:
            if pending in self._pending:  # interrupted
                self._pending.remove(pending)
            if self._leader is pending:
                self._leader = self._pending.pop(0) if self._pending else None
                if self._leader is not None:
                    self._leader.is_leader = True
                    self._leader.wakeup.release()
