"""A handle of one request: a `concurrent.futures.Future` whose result is how the request ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Protocol, TypeVar

from ecs_queue.client.producer import PreparedRequest
from ecs_queue.error_text import traceback_text
from ecs_queue.errors import ResultTimeout
from ecs_queue.messages.result import TaskResult, build_result
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

T = TypeVar("T")

logger = logging.getLogger("ecs_queue")


class HandleClient(Protocol):
    """What a handle needs of its client, whose thread ends the handle when the request has ended."""

    def status(self, record_id: str) -> Record:
        """See `EcsQueue.status`."""
        ...

    def stop_many(self, ids: Sequence[str], by: str | None = None) -> list[Record]:
        """See `EcsQueue.stop_many`."""
        ...

    @property
    def results(self) -> HandleResults:
        """Ends the client's handles."""
        ...


class HandleResults(Protocol):
    """Ends handles when their requests have ended; `client.results:ResultReader` is one."""

    def prepare_wait(self, timeout: float | None, is_over: Callable[[], bool]) -> float | None:
        """Return how long to wait at most; raise `UsageError` where the wait would never end."""
        ...

    def check_process(self) -> None:
        """Raise `UsageError` in a process that was forked from the one that opened the client."""
        ...

    def keep(self, handle: Handle) -> None:
        """Keep the handle until it is done, for its callbacks."""
        ...

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller is the thread that ends the handles of all requests."""
        ...

    def deliver(self, result: TaskResult) -> None:
        """End the handles of this request."""
        ...

    def confirm_later(self, handle: Handle) -> None:
        """Note that the caller has the result."""
        ...


class Handle(Future[TaskResult]):
    """One submitted request, as a future: `concurrent.futures.wait` and `as_completed` take it.

    It is done when the request has ended, however it ended: `result` returns the `TaskResult` of a success, a failure,
    a stop and an expiry alike, and `exception` returns None for all of them. It raises only when there is no result:
    after a time-out, when the ledger does not know the request any more, and when the client was closed.

    Attributes:
        id: The request.
        nonce: Distinguishes this submission from others of the same id.
        prepared_request: What this process submitted: it is put again when the ledger loses it in a fail-over.
        order: The number of results that its client had before this one; -1 while the request goes on.
    """

    def __init__(
        self, client: HandleClient, id: str, nonce: str, prepared_request: PreparedRequest | None = None
    ) -> None:
        """Create the handle of a request that has not ended, as far as it is known."""
        super().__init__()
        self._client = client
        self.id = id
        self.nonce = nonce
        self.prepared_request = prepared_request
        self.order = -1
        self._was_revoked = False

    def __repr__(self) -> str:
        """Without the payload."""
        return f"Handle(id={self.id!r}, {'done' if self.done() else 'pending'})"

    def result(self, timeout: float | None = None) -> TaskResult:
        """Wait for the end, and return how the request ended.

        Outages of broker and ledger, and a lost result message, only delay it.

        Args:
            timeout: Seconds to wait; None waits without a limit.

        Raises:
            ResultTimeout: The request has not ended in time. It goes on.
            UnknownTask: The ledger does not know the request any more: its retention time is over, or a fail-over
                lost it and it cannot be put again.
            UsageError: The client was closed, or belongs to another process, or a callback waits for another result.
        """
        result = self.outcome(timeout)
        self._client.results.confirm_later(self)
        return result

    def outcome(self, timeout: float | None = None) -> TaskResult:
        """Return what `result` does, without the confirmation to the ledger that the caller has it."""
        return self._wait(super().result, timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end; return None when there is a result, else what `result` raises. Raises as `result` does."""
        return self._wait(super().exception, timeout)

    def add_done_callback(self, fn: Callable[[Future[TaskResult]], object]) -> None:
        """Call `fn(handle)` when the request has ended, in the thread that reads all results: keep it short.

        The client keeps the handle until then. A callback must not wait for other results. What it raises is logged.
        """
        self._client.results.keep(self)
        self.notify(fn)

    def notify(self, fn: Callable[[Future[TaskResult]], object]) -> None:
        """Call `fn(handle)` as a callback, but only while the program has a reference to the handle."""
        super().add_done_callback(partial(_run_callback, self._client.results, self.id, fn))

    def check_process(self) -> None:
        """Raise `UsageError` in a process that was forked from the one that opened the client: no end comes there."""
        self._client.results.check_process()

    def running(self) -> bool:
        """Return whether a task of it is being launched or runs, as the ledger says now."""
        return not self.done() and self.state() in (State.LAUNCHING, State.LAUNCHED)

    def cancel(self) -> bool:
        """Request a stop. Return True when the request was revoked at once: it ends as REVOKED and never runs.

        False when it has ended already, and when it may be running: then the stop takes its time, and `result` returns
        the end.
        """
        if self.done():
            return self._was_revoked
        (record,) = self._client.stop_many([self.id])
        return self.note_stop(record)

    def cancelled(self) -> bool:
        """Return whether a `cancel` of this handle revoked the request. Its `result` has the state REVOKED."""
        return self._was_revoked

    def state(self) -> State:
        """Return the present state; raise `UnknownTask` when the ledger does not know the request."""
        return self._client.status(self.id).state

    def stop(self, by: str | None = None) -> State:
        """Request a stop, see `EcsQueue.stop`."""
        (record,) = self._client.stop_many([self.id], by)
        self._end_with(record)
        return record.state

    def note_stop(self, record: Record) -> bool:
        """End the handle if a stop has ended its request, given the record after it; return whether it was revoked."""
        self._was_revoked = record.state is State.REVOKED
        self._end_with(record)
        return self._was_revoked

    def _end_with(self, record: Record) -> None:
        if record.is_terminal and record.nonce == self.nonce:
            self._client.results.deliver(build_result(record))

    def _wait(self, read: Callable[[float | None], T], timeout: float | None) -> T:
        if not self.done():
            timeout = self._client.results.prepare_wait(timeout, self.done)
        try:
            return read(timeout)
        except TimeoutError:
            if self.done():
                raise
            raise ResultTimeout(f"{self.id} has not ended in time; wait again, it was not stopped") from None


def _run_callback(
    results: HandleResults,
    request_id: str,
    fn: Callable[[Future[TaskResult]], object],
    handle: Future[TaskResult],
) -> None:
    """Call `fn(handle)`. It holds no reference to the handle, which would keep it."""
    try:
        fn(handle)
    except BaseException as error:  # SystemExit, say: it must not end the thread that ends all other handles
        if not results.is_own_thread:
            raise
        logger.error("A callback of %s ended with an error: %s", request_id, traceback_text(error))
