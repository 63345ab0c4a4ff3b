"""Reads results for all handles of a client. Messages make it fast; reading the ledger makes it reliable."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress

from ecs_queue.broker.base import Broker
from ecs_queue.client.confirmations import Confirmations
from ecs_queue.client.handle import Handle
from ecs_queue.client.producer import PreparedRequest
from ecs_queue.client.result_inbox import ResultInbox
from ecs_queue.client.result_verification import ResultKey, decode_result_keys, iter_confirmed_results
from ecs_queue.client.running_requests import RunningRequests
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import LedgerUnavailable, ResultTimeout, UnknownTask, UsageError
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages.keyring import NO_KEYS, Keyring
from ecs_queue.messages.result import TaskResult, build_result
from ecs_queue.outage_log import OutageLine, OutageLog, OutagePhase
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.record_defects import is_broken_record

logger = logging.getLogger("ecs_queue")

PutAgain = Callable[[PreparedRequest], bool]

#: How often the ledger is read (seconds), and how many requests at once: thousands are read in turn.
_LEDGER_CHECK_INTERVAL_SECONDS = 1.0
_LEDGER_CHECK_BATCH_SIZE = 500
_DRAIN_TIMEOUT_SECONDS = 0.25
#: Maximum number of results kept that arrived before the caller had a handle. Older ones are read from the ledger.
_MAX_EARLY_RESULTS = 5000
#: How long the thread waits for another handle when all have ended, before it ends too. Seconds.
_LINGER_SECONDS = 5.0
#: How long `close` waits for the thread that reads the results. Seconds.
_CLOSE_TIMEOUT_SECONDS = 2.0
_NO_RECORD = "the ledger has no record of %s: its retention time is over, or a fail-over lost it; no result will come"
_CLOSED = "the client was closed before the result came; the request was not stopped"


def start_thread(run: Callable[[], None]) -> None:
    """Run the function in a thread that does not keep the process alive."""
    threading.Thread(target=run, name="ecs-queue-results", daemon=True).start()


class _Waiter:
    """One iteration over handles: those that have ended and were not yielded yet, and what wakes the iterator."""

    def __init__(self, event: threading.Event) -> None:
        self.ready: deque[Handle] = deque()
        self.event = event

    def add(self, handle: Handle) -> None:
        self.ready.append(handle)
        self.event.set()


class ResultReader:
    """Ends the handles of one client. One thread reads for all of them, while a handle is awaited or may be.

    A handle is watched while the program has a reference to it, or it has callbacks.
    """

    def __init__(
        self,
        broker: Broker,
        ledger: Ledger,
        owner: str,
        put_again: PutAgain,
        keyring: Keyring = NO_KEYS,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        new_event: Callable[[], threading.Event] = threading.Event,
        start: Callable[[Callable[[], None]], None] = start_thread,
    ) -> None:
        """Create a reader. It starts its thread with the first handle, which opens the owner's result queue.

        Args:
            broker: Where result messages arrive.
            ledger: Where results are stored.
            owner: Whose results; "": nothing is published to it, so only the ledger is read.
            put_again: Puts a request that the ledger lost; returns False when the ledger does not accept it any more.
            keyring: With a signing key, unsigned result messages are ignored.
            monotonic: Seconds of a clock that never goes back.
            new_event: Makes the events that its threads wait for.
            start: Runs a function in a thread of its own.
        """
        self._inbox = ResultInbox(broker, owner, monotonic)
        self._ledger = ledger
        self._owner = owner
        self._put_again = put_again
        self._keyring = keyring
        self._monotonic = monotonic
        self._new_event = new_event
        self._start = start
        self._process_id = os.getpid()
        self._lock = threading.RLock()
        self._watched: dict[ResultKey, list[weakref.ref[Handle]]] = {}
        self._kept: set[Handle] = set()
        self._waiters: dict[ResultKey, list[_Waiter]] = {}
        self._early_results: dict[ResultKey, TaskResult] = {}
        self._confirmations = Confirmations(ledger, owner, new_event)
        self._to_check: deque[ResultKey] = deque()
        self._ledger_checked_at = float("-inf")
        self._outage_log = OutageLog(monotonic)
        self.running = RunningRequests()
        self._result_count = 0
        self._thread_id: int | None = None
        self._is_running = False
        self._wake = new_event()
        self._closed = new_event()
        self._ended = new_event()

    @property
    def has_result_queue(self) -> bool:
        """Whether the owner's result queue was opened."""
        return self._inbox.is_open

    @property
    def is_own_thread(self) -> bool:
        """See `HandleResults.is_own_thread`."""
        return self._thread_id == threading.get_ident()

    def watch(self, handle: Handle) -> None:
        """End the handle when its request has ended; at once when another thread has closed the client meanwhile."""
        key = handle.id, handle.nonce
        with self._lock:
            early = self._early_results.pop(key, None)
            is_closed = self._closed.is_set()
            if early is None and not is_closed:
                self._watched.setdefault(key, []).append(weakref.ref(handle))
                self.start_reading()
            else:
                self._mark([handle])
        if early is not None:
            handle.set_result(early)
        elif is_closed:
            handle.set_exception(UsageError(_CLOSED))

    def keep(self, handle: Handle) -> None:
        """See `HandleResults.keep`."""
        with self._lock:
            if not handle.done():
                self._kept.add(handle)

    def confirm_later(self, handle: Handle) -> None:
        """Confirm to the ledger, soon, that the caller has the result; its retention starts."""
        if self._owner:
            self._confirmations.note((handle.id, handle.nonce))
            if not self._closed.is_set():
                with suppress(RuntimeError):  # no thread can be started, at the interpreter's end say: `close` confirms
                    self.start_reading()

    def check_process(self) -> None:
        """Raise `UsageError` in a process that was forked from the one that opened the client."""
        if os.getpid() != self._process_id:
            raise UsageError(
                "the client was opened before this process was forked, and belongs to its parent: open one here"
            )

    def prepare_wait(self, timeout: float | None, is_over: Callable[[], bool]) -> float | None:  # noqa: ARG002
        """See `HandleResults.prepare_wait`. `is_over` says whether the caller still has to wait."""
        self.check_process()
        if self.is_own_thread:
            raise UsageError(
                "a callback waits for another result in the thread that reads all results: it would wait for ever; "
                "hand the waiting to a thread of your own"
            )
        return None if timeout is None else min(timeout, threading.TIMEOUT_MAX)  # infinity, say

    def as_completed(self, handles: Sequence[Handle], timeout: float | None) -> Iterator[TaskResult]:
        """Yield each result once, as the requests end; raises as `EcsQueue.as_completed` does."""
        deadline = None if timeout is None else self._monotonic() + timeout
        left = {(handle.id, handle.nonce): handle for handle in handles}
        waiter = self._register(left.values())
        try:
            while left:
                while not waiter.ready:
                    self._await_one(waiter, deadline, len(left))
                handle = waiter.ready.popleft()
                left.pop((handle.id, handle.nonce), None)
                result = handle.outcome()
                crash_point("client.result_yielding")
                try:
                    yield result
                finally:
                    self.confirm_later(handle)
            self._confirm()
        finally:
            self._unregister(handles, waiter)

    def deliver(self, result: TaskResult) -> None:
        """End the handles of this request; a result without one is kept for a while."""
        if not self._finish((result.id, result.nonce), result):
            with self._lock:
                self._keep_early_result(result)

    def close(self) -> None:
        """Confirm the results that the caller has, and end the thread. Handles that are not done raise `UsageError`."""
        self._closed.set()
        self._wake.set()
        if self._is_running and not self.is_own_thread:
            self._ended.wait(_CLOSE_TIMEOUT_SECONDS)
        self._confirm()
        if self.is_own_thread or not self._is_running:
            self._inbox.close()
        self._fail_all(UsageError(_CLOSED))

    def start_reading(self) -> None:
        """Start the thread, or wake it; raise `RuntimeError` when no thread can be started now."""
        with self._lock:
            self._wake.set()
            if self._is_running or self._closed.is_set():
                return
            self._is_running = True
            self._ended.clear()
        try:
            self._start(self._run)
        except RuntimeError:  # the next call tries again
            with self._lock:
                self._is_running = False
            raise

    def _run(self) -> None:
        """Read results until there is nothing to do for a while."""
        self._thread_id = threading.get_ident()
        while self._has_more_to_do():
            try:
                self._step()
            except Exception as error:  # noqa: BLE001 - every handle raises it
                self._fail_all(error)
                self._closed.wait(_DRAIN_TIMEOUT_SECONDS)  # a confirmation that fails so is tried again

    def _has_more_to_do(self) -> bool:
        """Wait for a handle or a confirmation; return False, with the thread's end noted, when none comes."""
        self._wake.clear()
        if not self._has_work() and not self._closed.is_set():
            self._wake.wait(_LINGER_SECONDS)
        with self._lock:
            self._is_running = self._has_work() and not self._closed.is_set()
            if not self._is_running:
                self._thread_id = None
                self._ended.set()
            return self._is_running

    def _has_work(self) -> bool:
        with self._lock:
            return bool(self._watched or self._confirmations)

    def _step(self) -> None:
        self._forget_dropped()
        if self._watched:
            self._verify_with_ledger(self._inbox.drain(_DRAIN_TIMEOUT_SECONDS, self._closed))
            self._check_ledger()
        self._confirm()

    def _forget_dropped(self) -> None:
        """Stop watching requests whose handles the program has dropped, once in a round over all of them."""
        if self._to_check:
            return
        with self._lock:
            for key in [key for key, found in self._watched.items() if not any(ref() is not None for ref in found)]:
                del self._watched[key]
                self.running.discard(key)

    def _fail_all(self, error: Exception) -> None:
        with self._lock:
            keys = list(self._watched)
        with ExitStack() as stack:  # all are ended, also when a callback ends the caller's thread
            for key in keys:
                stack.callback(self._finish, key, error)

    def _register(self, handles: Iterable[Handle]) -> _Waiter:
        """Give the handles that are done in the order of their ends, and the others when they end."""
        waiter = _Waiter(self._new_event())
        with self._lock:
            for handle in sorted(handles, key=lambda handle: handle.order):
                if handle.order >= 0:
                    waiter.ready.append(handle)
                else:
                    self._waiters.setdefault((handle.id, handle.nonce), []).append(waiter)
        return waiter

    def _unregister(self, handles: Iterable[Handle], waiter: _Waiter) -> None:
        with self._lock:
            for handle in handles:
                key = handle.id, handle.nonce
                others = [other for other in self._waiters.pop(key, ()) if other is not waiter]
                if others:
                    self._waiters[key] = others

    def _await_one(self, waiter: _Waiter, deadline: float | None, open_requests: int) -> None:
        left = None if deadline is None else deadline - self._monotonic()
        left = self.prepare_wait(left, lambda: bool(waiter.ready))
        if left is not None and left <= 0 and not waiter.ready:
            raise ResultTimeout(f"{open_requests} of the requests have not ended in time; wait again, none was stopped")
        waiter.event.clear()
        if not waiter.ready:
            waiter.event.wait(left)

    def _verify_with_ledger(self, bodies: Sequence[bytes]) -> None:
        keys = decode_result_keys(bodies, self._keyring, logger)
        if not keys:
            return
        try:
            records = self._ledger.get([record_id for record_id, _ in keys])
        except LedgerUnavailable as error:
            self._log_outage(self._outage_log.record_failure(str(error)))
            return  # `_check_ledger` reads all awaited requests later
        for result in iter_confirmed_results(keys, records, self._owner, logger):
            self.deliver(result)

    def _check_ledger(self) -> None:
        """Read the records of some watched requests, of all in turn."""
        now = self._monotonic()
        if now - self._ledger_checked_at < _LEDGER_CHECK_INTERVAL_SECONDS:
            return
        self._ledger_checked_at = now
        with self._lock:
            if not self._to_check:
                self._to_check.extend(self._watched)
            size = min(len(self._to_check), _LEDGER_CHECK_BATCH_SIZE)
            keys = [key for key in (self._to_check.popleft() for _ in range(size)) if key in self._watched]
        try:
            for key, record in zip(keys, self._ledger.get([record_id for record_id, _ in keys]), strict=True):
                self._apply_record(key, record)
        except LedgerUnavailable as error:
            self._log_outage(self._outage_log.record_failure(str(error)))
        else:
            self._log_outage(self._outage_log.record_success())

    def _log_outage(self, line: OutageLine | None) -> None:
        if line is not None:
            level = logging.INFO if line.phase is OutagePhase.ENDED else logging.WARNING
            logger.log(level, "Waiting for results: %s", line.describe("the ledger"))

    def _apply_record(self, key: ResultKey, record: Record | None) -> None:
        self.running.note(key, record)
        if record is not None and record.nonce == key[1]:
            if record.is_terminal:
                self.deliver(build_result(record))
            return
        prepared_request = next((h.prepared_request for h in self._handles(key) if h.prepared_request), None)
        # No record: the ledger lost the put in a fail-over. No nonce: the record is a stop that came before its put.
        may_put = prepared_request is not None and (record is None or not record.nonce)
        if not (may_put and prepared_request is not None and self._put_again(prepared_request)):
            is_broken = record is not None and is_broken_record(record)
            self._finish(key, UnknownTask(record.reason if record and is_broken else _NO_RECORD % key[0]))

    def _handles(self, key: ResultKey) -> list[Handle]:
        with self._lock:
            return [handle for ref in self._watched.get(key, ()) if (handle := ref()) is not None]

    def _finish(self, key: ResultKey, outcome: TaskResult | Exception) -> bool:
        """End all handles of the request; return False when there is none."""
        with self._lock:
            handles = self._handles(key)
            self._watched.pop(key, None)
            self.running.discard(key)
            waiters = self._waiters.pop(key, ())
            self._mark(handles)
        with ExitStack() as stack:  # as in `_fail_all`; the last that is added is the first to be called
            for waiter in waiters if handles else ():
                stack.callback(waiter.add, handles[0])
            for handle in reversed(handles):
                stack.callback(self._end, handle, outcome)
        return bool(handles)

    def _end(self, handle: Handle, outcome: TaskResult | Exception) -> None:
        try:
            if isinstance(outcome, TaskResult):
                handle.set_result(outcome)
            else:
                handle.set_exception(outcome)
        finally:
            with self._lock:
                self._kept.discard(handle)

    def _mark(self, handles: Sequence[Handle]) -> None:
        """Give the handles their place in the order of the results."""
        for handle in handles:
            handle.order = self._result_count
            self._result_count += 1

    def _keep_early_result(self, result: TaskResult) -> None:
        self._early_results[result.id, result.nonce] = result
        if len(self._early_results) > _MAX_EARLY_RESULTS:
            del self._early_results[next(iter(self._early_results))]

    def _confirm(self) -> None:
        """Confirm what the caller has; pause when the ledger does not take it."""
        if not self._confirmations.send():
            self._closed.wait(_DRAIN_TIMEOUT_SECONDS)
