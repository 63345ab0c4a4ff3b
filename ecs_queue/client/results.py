"""Waits for results: messages make it fast, the ledger makes it sure."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from ecs_queue.broker.base import Broker, ResultConsumer
from ecs_queue.client.result_verification import ResultKey, decode_result_keys, iter_confirmed_results
from ecs_queue.crash_points import crash_point
from ecs_queue.errors import (
    BrokerUnavailable,
    LedgerUnavailable,
    ResultTimeout,
    UnknownTask,
    UsageError,
)
from ecs_queue.ledger.base import Ledger
from ecs_queue.messages.envelope import TaskResult, build_result
from ecs_queue.messages.keyring import NO_KEYS, Keyring
from ecs_queue.protocol.record import Record

logger = logging.getLogger("ecs_queue")

Prepared = TypeVar("Prepared")
#: What one waiting iterator has been given and not yet handed out.
_ReadyResults = deque[TaskResult | UnknownTask]

#: How often the ledger is asked, and about how many requests at once: a few thousand are asked in turn. Seconds.
_LEDGER_CHECK_INTERVAL_SECONDS = 1.0
_LEDGER_CHECK_BATCH_SIZE = 500
_DRAIN_TIMEOUT_SECONDS = 0.25
#: How long a broker that could not be reached is left alone: an attempt may take as long as its time-out. Seconds.
_BROKER_RETRY_SECONDS = 2.0
#: Results that came before anybody waited for them; the oldest beyond are found in the ledger.
_MAX_EARLY_RESULTS = 5000
#: How long closing waits for the thread that reads the results. Seconds.
_CLOSE_TIMEOUT_SECONDS = 2.0


class ResultWaiter(Generic[Prepared]):
    """The results of one owner. Any number of threads may wait; one of them drains for all.

    `submit_again(draft)`: the ledger does not know a request that was put into it; False when it cannot be put any
    more. Without an owner nobody sends anything, and only the ledger is asked. `keyring`: with a signing key a result
    that is not signed is no result, for anybody may have written it.
    """

    def __init__(
        self,
        broker: Broker,
        ledger: Ledger,
        owner: str,
        put_again: Callable[[Prepared], bool],
        keyring: Keyring = NO_KEYS,
    ) -> None:
        self._broker = broker
        self._ledger = ledger
        self._owner = owner
        self._put_again = put_again
        self._keyring = keyring
        self._drain_lock = threading.Lock()
        self._condition = threading.Condition()
        self._waiters: dict[ResultKey, list[_ReadyResults]] = {}
        self._prepared_requests: dict[ResultKey, Prepared] = {}  # of what is wanted
        self._early_results: dict[ResultKey, TaskResult] = {}
        self._to_confirm: deque[ResultKey] = deque()
        self._to_check: deque[ResultKey] = deque()
        self._ledger_checked_at = float("-inf")
        self._broker_retry_at = float("-inf")
        self._inbox: ResultConsumer | None = None
        self._closed = threading.Event()

    @property
    def has_inbox(self) -> bool:
        """Whether an owner's queue was ever read."""
        return self._inbox is not None

    def as_completed(
        self, requests: Mapping[ResultKey, Prepared | None], timeout: float | None
    ) -> Iterator[TaskResult]:
        """Each result once, as they come. A result counts as delivered when the next one is asked for.

        `wanted`: with the draft of what this process submitted. Raises `ResultTimeout`, and `UnknownTask` for a
        request that the ledger does not know and that cannot be submitted again: its result will never come.
        A ledger that cannot be reached is waited for.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        arrivals = self._register(requests)
        left = len(requests)
        try:
            while left:
                if not arrivals:
                    self._wait_for_results(arrivals, deadline, left)
                    continue
                arrived = arrivals.popleft()
                if isinstance(arrived, UnknownTask):
                    raise arrived
                self._to_confirm.append((arrived.id, arrived.nonce))
                left -= 1
                crash_point("client.result_yielding")
                yield arrived
            self._confirm()
        finally:
            self._unregister(requests, arrivals)

    def close(self) -> None:
        """Confirm what was handed out, and read no more; who still waits gets a `UsageError`."""
        self._closed.set()
        with self._condition:
            self._condition.notify_all()
        if self._drain_lock.acquire(timeout=_CLOSE_TIMEOUT_SECONDS):
            try:
                self._confirm()
                if self._inbox is not None:
                    self._inbox.close()
            finally:
                self._drain_lock.release()

    def _register(self, requests: Mapping[ResultKey, Prepared | None]) -> _ReadyResults:
        arrivals: _ReadyResults = deque()
        with self._condition:
            for key, draft in requests.items():
                early = self._early_results.pop(key, None)
                if early is not None:
                    arrivals.append(early)
                    continue
                self._waiters.setdefault(key, []).append(arrivals)
                if draft is not None:
                    self._prepared_requests[key] = draft
        return arrivals

    def _unregister(self, requests: Mapping[ResultKey, Prepared | None], ready: _ReadyResults) -> None:
        with self._condition:
            for key in requests:
                waiting = [other for other in self._waiters.get(key, ()) if other is not ready]
                if waiting:
                    self._waiters[key] = waiting
                else:
                    self._waiters.pop(key, None)
                    self._prepared_requests.pop(key, None)
            for arrived in ready:  # given, and not handed out
                if isinstance(arrived, TaskResult):
                    self._keep_early_result(arrived)

    def _wait_for_results(self, ready: _ReadyResults, deadline: float | None, open_requests: int) -> None:
        left = _DRAIN_TIMEOUT_SECONDS if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise ResultTimeout(
                f"{open_requests} of the requests have not ended in the given time; they go on, ask again"
            )
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
            raise UsageError("the client was closed while a result was waited for; the requests go on")

    def _drain(self, timeout: float) -> None:
        if not self._owner or time.monotonic() < self._broker_retry_at:
            self._closed.wait(timeout)  # only the ledger can tell
            return
        try:
            if self._inbox is None:
                self._inbox = self._broker.consume_results(self._owner)
            bodies = self._inbox.drain(timeout)
        except BrokerUnavailable as error:
            logger.debug("results are looked for in the ledger alone: %s", error)
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
            logger.warning("results have come, but the ledger cannot be asked about them: %s", error)
            return  # it is asked again about all that is waited for
        for result in iter_confirmed_results(keys, records, self._owner, logger):
            self._deliver(result)

    def _check_ledger(self) -> None:
        """Ask the ledger about some of the wanted requests, in turn, whoever waits for them."""
        if time.monotonic() - self._ledger_checked_at < _LEDGER_CHECK_INTERVAL_SECONDS:
            return
        self._ledger_checked_at = time.monotonic()
        with self._condition:
            if not self._to_check:
                self._to_check.extend(self._waiters)
            some = [self._to_check.popleft() for _ in range(min(len(self._to_check), _LEDGER_CHECK_BATCH_SIZE))]
            some = [key for key in some if key in self._waiters]
        try:
            for key, record in zip(some, self._ledger.get([record_id for record_id, _ in some]), strict=True):
                self._apply_record(key, record)
        except LedgerUnavailable as error:
            logger.warning("results are waited for, but the ledger cannot be asked: %s", error)

    def _apply_record(self, key: ResultKey, record: Record | None) -> None:
        """What the ledger says of a wanted request."""
        if record is not None and record.nonce == key[1]:
            if record.is_terminal:
                self._deliver(build_result(record))
            return
        draft = self._prepared_requests.get(key)
        # No record: the ledger has lost the put at a fail-over. No nonce: it has a stop that came before the request.
        may_put = draft is not None and (record is None or not record.nonce)
        if not (may_put and draft is not None and self._put_again(draft)):
            self._notify_waiters(
                key, UnknownTask(f"the request {key[0]} is not known any more, its result cannot come")
            )

    def _deliver(self, result: TaskResult) -> None:
        if not self._notify_waiters((result.id, result.nonce), result):
            with self._condition:
                self._keep_early_result(result)

    def _notify_waiters(self, key: ResultKey, outcome: TaskResult | UnknownTask) -> bool:
        """To everybody who waits for it; False when nobody does."""
        with self._condition:
            waiting = self._waiters.pop(key, ())
            self._prepared_requests.pop(key, None)
            for arrivals in waiting:
                arrivals.append(outcome)
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
            logger.debug("the results are confirmed later: %s", error)
            self._to_confirm.extendleft(keys)
