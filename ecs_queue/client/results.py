"""Waits for results. Result messages make it fast; reading the ledger makes it reliable."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ecs_queue.broker.base import Broker, ResultConsumer
from ecs_queue.client.producer import PreparedRequest
from ecs_queue.client.result_verification import ResultKey, decode_result_keys, iter_confirmed_results
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable, ResultTimeout, UnknownTask, UsageError
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages.envelope import TaskResult, build_result
from ecs_queue.messages.keyring import NO_KEYS, Keyring
from ecs_queue.protocol.record import Record

logger = logging.getLogger("ecs_queue")

PutAgain = Callable[[PreparedRequest], bool]
#: What one waiting iterator has been given and has not yielded yet.
_ReadyResults = deque[TaskResult | UnknownTask]

#: How often the ledger is read (seconds), and how many requests at once: thousands are read in turn.
_LEDGER_CHECK_INTERVAL_SECONDS = 1.0
_LEDGER_CHECK_BATCH_SIZE = 500
_DRAIN_TIMEOUT_SECONDS = 0.25
#: Pause after a broker that cannot be reached: each attempt may take the whole socket timeout. Seconds.
_BROKER_RETRY_SECONDS = 2.0
#: Maximum number of results kept that arrived before the caller waited for them. Older ones are read from the ledger.
_MAX_EARLY_RESULTS = 5000
#: How long `close` waits for the thread that reads the results. Seconds.
_CLOSE_TIMEOUT_SECONDS = 2.0
_NO_RECORD = "the ledger has no record of %s: its retention time is over, or a fail-over lost it; no result will come"


class ResultWaiter:
    """Waits for the results of one owner. Any number of threads may wait; one of them reads the messages for all."""

    def __init__(
        self, broker: Broker, ledger: Ledger, owner: str, put_again: PutAgain, keyring: Keyring = NO_KEYS
    ) -> None:
        """Create a waiter; it opens the owner's result queue on first use.

        Args:
            broker: Where result messages arrive.
            ledger: Where results are stored.
            owner: Whose results; "": nothing is published to it, so only the ledger is read.
            put_again: Puts a request that the ledger lost; returns False when the ledger does not accept it any more.
            keyring: With a signing key, unsigned result messages are ignored.
        """
        self._broker = broker
        self._ledger = ledger
        self._owner = owner
        self._put_again = put_again
        self._keyring = keyring
        self._drain_lock = threading.Lock()
        self._condition = threading.Condition()
        self._waiters: dict[ResultKey, list[_ReadyResults]] = {}
        self._prepared_requests: dict[ResultKey, PreparedRequest] = {}  # of the awaited requests
        self._early_results: dict[ResultKey, TaskResult] = {}
        self._to_confirm: deque[ResultKey] = deque()
        self._to_check: deque[ResultKey] = deque()
        self._ledger_checked_at = float("-inf")
        self._broker_retry_at = float("-inf")
        self._result_consumer: ResultConsumer | None = None
        self._closed = threading.Event()

    @property
    def has_result_queue(self) -> bool:
        """Whether the owner's result queue was opened."""
        return self._result_consumer is not None

    def as_completed(
        self, requests: Mapping[ResultKey, PreparedRequest | None], timeout: float | None
    ) -> Iterator[TaskResult]:
        """Yield each result once, as the requests end. A result counts as delivered when the next one is requested.

        An outage of broker or ledger only delays the results.

        Args:
            requests: The awaited requests, each with what this process submitted, if it did.
            timeout: Seconds; None waits without a limit.

        Raises:
            ResultTimeout: Some requests have not ended in time.
            UnknownTask: The ledger does not know a request, and it cannot be put again: its result will never come.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        ready = self._register(requests)
        try:
            for left in range(len(requests), 0, -1):
                while not ready:
                    self._wait_for_results(ready, deadline, left)
                item = ready.popleft()
                if isinstance(item, UnknownTask):
                    raise item
                self._to_confirm.append((item.id, item.nonce))
                crash_point("client.result_yielding")
                yield item
            self._confirm()
        finally:
            self._unregister(requests, ready)

    def close(self) -> None:
        """Confirm the yielded results and stop reading. Threads that still wait raise `UsageError`."""
        self._closed.set()
        with self._condition:
            self._condition.notify_all()
        if self._drain_lock.acquire(timeout=_CLOSE_TIMEOUT_SECONDS):
            try:
                self._confirm()
                if self._result_consumer is not None:
                    self._result_consumer.close()
            finally:
                self._drain_lock.release()

    def _register(self, requests: Mapping[ResultKey, PreparedRequest | None]) -> _ReadyResults:
        ready: _ReadyResults = deque()
        with self._condition:
            for key, prepared_request in requests.items():
                early = self._early_results.pop(key, None)
                if early is not None:
                    ready.append(early)
                    continue
                self._waiters.setdefault(key, []).append(ready)
                if prepared_request is not None:
                    self._prepared_requests[key] = prepared_request
        return ready

    def _unregister(self, requests: Iterable[ResultKey], ready: _ReadyResults) -> None:
        with self._condition:
            for key in requests:
                others = [other for other in self._waiters.pop(key, ()) if other is not ready]
                if others:
                    self._waiters[key] = others
                else:
                    self._prepared_requests.pop(key, None)
            for item in ready:  # given, and not yielded
                if isinstance(item, TaskResult):
                    self._keep_early_result(item)

    def _wait_for_results(self, ready: _ReadyResults, deadline: float | None, open_requests: int) -> None:
        left = _DRAIN_TIMEOUT_SECONDS if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise ResultTimeout(f"{open_requests} of the requests have not ended in time; wait again, none was stopped")
        if self._drain_lock.acquire(blocking=False):
            try:
                self._check_open()
                self._drain(min(left, _DRAIN_TIMEOUT_SECONDS))
                self._check_ledger()
                self._confirm()
            finally:
                self._drain_lock.release()
        else:
            with self._condition:
                if not ready and not self._closed.is_set():
                    self._condition.wait(min(left, _DRAIN_TIMEOUT_SECONDS))
            self._check_open()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise UsageError("the client was closed while a thread waited for a result; the requests were not stopped")

    def _drain(self, timeout: float) -> None:
        if not self._owner or time.monotonic() < self._broker_retry_at:
            self._closed.wait(timeout)  # results come from the ledger alone
            return
        try:
            if self._result_consumer is None:
                self._result_consumer = self._broker.consume_results(self._owner)
            bodies = self._result_consumer.drain(timeout)
        except BrokerUnavailable as error:
            logger.debug("Results are read from the ledger alone, the broker cannot be reached: %s", error)
            self._broker_retry_at = time.monotonic() + _BROKER_RETRY_SECONDS
            return
        if bodies:
            crash_point("client.results_drained")
        self._verify_with_ledger(bodies)

    def _verify_with_ledger(self, bodies: Sequence[bytes]) -> None:
        keys = decode_result_keys(bodies, self._keyring, logger)
        if not keys:
            return
        try:
            records = self._ledger.get([record_id for record_id, _ in keys])
        except LedgerUnavailable as error:
            logger.warning("Results arrived, but the ledger cannot be read to verify them: %s", error)
            return  # `_check_ledger` reads all awaited requests later
        for result in iter_confirmed_results(keys, records, self._owner, logger):
            self._deliver(result)

    def _check_ledger(self) -> None:
        """Read the records of some awaited requests, of all threads in turn."""
        if time.monotonic() - self._ledger_checked_at < _LEDGER_CHECK_INTERVAL_SECONDS:
            return
        self._ledger_checked_at = time.monotonic()
        with self._condition:
            if not self._to_check:
                self._to_check.extend(self._waiters)
            size = min(len(self._to_check), _LEDGER_CHECK_BATCH_SIZE)
            keys = [key for key in (self._to_check.popleft() for _ in range(size)) if key in self._waiters]
        try:
            for key, record in zip(keys, self._ledger.get([record_id for record_id, _ in keys]), strict=True):
                self._apply_record(key, record)
        except LedgerUnavailable as error:
            logger.warning("Waiting for results, but the ledger cannot be read: %s", error)

    def _apply_record(self, key: ResultKey, record: Record | None) -> None:
        if record is not None and record.nonce == key[1]:
            if record.is_terminal:
                self._deliver(build_result(record))
            return
        prepared_request = self._prepared_requests.get(key)
        # No record: the ledger lost the put in a fail-over. No nonce: the record is a stop that came before its put.
        may_put = prepared_request is not None and (record is None or not record.nonce)
        if not (may_put and prepared_request is not None and self._put_again(prepared_request)):
            self._notify_waiters(key, UnknownTask(_NO_RECORD % key[0]))

    def _deliver(self, result: TaskResult) -> None:
        if not self._notify_waiters((result.id, result.nonce), result):
            with self._condition:
                self._keep_early_result(result)

    def _notify_waiters(self, key: ResultKey, item: TaskResult | UnknownTask) -> bool:
        """Give the item to all that wait for it; return False when none does."""
        with self._condition:
            waiting = self._waiters.pop(key, ())
            self._prepared_requests.pop(key, None)
            for ready in waiting:
                ready.append(item)
            self._condition.notify_all()
        return bool(waiting)

    def _keep_early_result(self, result: TaskResult) -> None:
        self._early_results[result.id, result.nonce] = result
        if len(self._early_results) > _MAX_EARLY_RESULTS:
            del self._early_results[next(iter(self._early_results))]

    def _confirm(self) -> None:
        keys = [self._to_confirm.popleft() for _ in range(len(self._to_confirm))]
        if not keys or not self._owner:
            return
        crash_point("client.results_confirming")
        try:
            self._ledger.confirm(keys, self._owner)
            crash_point("client.results_confirmed")
        except LedgerUnavailable as error:
            logger.debug("Confirming results is retried later: %s", error)
            self._to_confirm.extendleft(keys)
