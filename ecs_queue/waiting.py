"""Waits for results: messages make it fast, the ledger makes it sure."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from ecs_queue.broker.base import Broker, ResultInbox
from ecs_queue.core.envelope import TaskResult, decode_result, result_of
from ecs_queue.core.keyring import NO_KEYS, Keyring
from ecs_queue.core.record import Record
from ecs_queue.crashpoints import reach
from ecs_queue.errors import (
    BrokerUnavailable,
    LedgerUnavailable,
    ResultTimeout,
    UndecodableMessage,
    UnknownTask,
    UnverifiedMessage,
    UsageError,
)
from ecs_queue.ledger.base import Ledger

logger = logging.getLogger("ecs_queue")

Draft = TypeVar("Draft")
Key = tuple[str, str]  # id, nonce
#: What one waiting iterator has been given and not yet handed out.
_Arrivals = deque[TaskResult | UnknownTask]

#: How often the ledger is asked, and about how many requests at once: a few thousand are asked in turn. Seconds.
_RECONCILE_EVERY = 1.0
_RECONCILE_AT_ONCE = 500
_DRAIN = 0.25
#: How long a broker that could not be reached is left alone: an attempt may take as long as its time-out. Seconds.
_BROKER_REST = 2.0
#: Results that came before anybody waited for them; the oldest beyond are found in the ledger.
_EARLY_KEPT = 5000
#: How long closing waits for the thread that reads the results. Seconds.
_CLOSE_PATIENCE = 2.0


class Waiting(Generic[Draft]):
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
        submit_again: Callable[[Draft], bool],
        keyring: Keyring = NO_KEYS,
    ) -> None:
        self._broker = broker
        self._ledger = ledger
        self._owner = owner
        self._submit_again = submit_again
        self._keyring = keyring
        self._draining = threading.Lock()
        self._changed = threading.Condition()
        self._wanted: dict[Key, list[_Arrivals]] = {}
        self._drafts: dict[Key, Draft] = {}  # of what is wanted
        self._early: dict[Key, TaskResult] = {}
        self._to_confirm: deque[Key] = deque()
        self._to_ask: deque[Key] = deque()
        self._asked_at = float("-inf")
        self._broker_rests_until = float("-inf")
        self._inbox: ResultInbox | None = None
        self._closed = threading.Event()

    @property
    def used(self) -> bool:
        """Whether an owner's queue was ever read."""
        return self._inbox is not None

    def as_completed(self, wanted: Mapping[Key, Draft | None], timeout: float | None) -> Iterator[TaskResult]:
        """Each result once, as they come. A result counts as delivered when the next one is asked for.

        `wanted`: with the draft of what this process submitted. Raises `ResultTimeout`, and `UnknownTask` for a
        request that the ledger does not know and that cannot be submitted again: its result will never come.
        A ledger that cannot be reached is waited for.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        arrivals = self._want(wanted)
        left = len(wanted)
        try:
            while left:
                if not arrivals:
                    self._wait(arrivals, deadline, left)
                    continue
                arrived = arrivals.popleft()
                if isinstance(arrived, UnknownTask):
                    raise arrived
                self._to_confirm.append((arrived.id, arrived.nonce))
                left -= 1
                reach("results.handing_over")
                yield arrived
            self._confirm()
        finally:
            self._unwant(wanted, arrivals)

    def close(self) -> None:
        """Confirm what was handed out, and read no more; who still waits gets a `UsageError`."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        if self._draining.acquire(timeout=_CLOSE_PATIENCE):
            try:
                self._confirm()
                if self._inbox is not None:
                    self._inbox.close()
            finally:
                self._draining.release()

    def _want(self, wanted: Mapping[Key, Draft | None]) -> _Arrivals:
        arrivals: _Arrivals = deque()
        with self._changed:
            for key, draft in wanted.items():
                early = self._early.pop(key, None)
                if early is not None:
                    arrivals.append(early)
                    continue
                self._wanted.setdefault(key, []).append(arrivals)
                if draft is not None:
                    self._drafts[key] = draft
        return arrivals

    def _unwant(self, wanted: Mapping[Key, Draft | None], arrivals: _Arrivals) -> None:
        with self._changed:
            for key in wanted:
                waiting = [other for other in self._wanted.get(key, ()) if other is not arrivals]
                if waiting:
                    self._wanted[key] = waiting
                else:
                    self._wanted.pop(key, None)
                    self._drafts.pop(key, None)
            for arrived in arrivals:  # given, and not handed out
                if isinstance(arrived, TaskResult):
                    self._keep_early(arrived)

    def _wait(self, arrivals: _Arrivals, deadline: float | None, open_requests: int) -> None:
        left = _DRAIN if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise ResultTimeout(
                f"{open_requests} of the requests have not ended in the given time; they go on, ask again"
            )
        if self._draining.acquire(blocking=False):
            try:
                self._check_open()
                self._drain(min(left, _DRAIN))
                self._reconcile()
                self._confirm()
            finally:
                self._draining.release()
        else:
            with self._changed:
                if not arrivals and not self._closed.is_set():
                    self._changed.wait(min(left, _DRAIN))
            self._check_open()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise UsageError("the client was closed while a result was waited for; the requests go on")

    def _drain(self, timeout: float) -> None:
        if not self._owner or time.monotonic() < self._broker_rests_until:
            self._closed.wait(timeout)  # only the ledger can tell
            return
        try:
            if self._inbox is None:
                self._inbox = self._broker.results(self._owner)
            bodies = self._inbox.drain(timeout)
        except BrokerUnavailable as error:
            logger.debug("results are looked for in the ledger alone: %s", error)
            self._broker_rests_until = time.monotonic() + _BROKER_REST
            return
        if bodies:
            reach("results.drained")
        self._verify(bodies)

    def _verify(self, bodies: Sequence[bytes]) -> None:
        """A message says where to look; what is true the ledger says. So a forged or mistaken one does no harm."""
        told: dict[Key, None] = {}
        for body in bodies:
            try:
                result = decode_result(body, self._keyring)
            except UnverifiedMessage as error:
                logger.warning("a result message is not believed, the ledger is asked: %s", error)
                continue
            except UndecodableMessage:
                continue  # not from a launcher of this version
            told[result.id, result.nonce] = None
        if not told:
            return
        try:
            records = self._ledger.get([record_id for record_id, _ in told])
        except LedgerUnavailable as error:
            logger.warning("results have come, but the ledger cannot be asked about them: %s", error)
            return  # it is asked again about all that is waited for
        for key, record in zip(told, records, strict=True):
            if record is not None and record.nonce == key[1] and record.ended and record.owner == self._owner:
                self._arrived(result_of(record))
            else:
                logger.warning("a result message for %s is not borne out by the ledger and is left alone", key[0])

    def _reconcile(self) -> None:
        """Ask the ledger about some of the wanted requests, in turn, whoever waits for them."""
        if time.monotonic() - self._asked_at < _RECONCILE_EVERY:
            return
        self._asked_at = time.monotonic()
        with self._changed:
            if not self._to_ask:
                self._to_ask.extend(self._wanted)
            some = [self._to_ask.popleft() for _ in range(min(len(self._to_ask), _RECONCILE_AT_ONCE))]
            some = [key for key in some if key in self._wanted]
        try:
            for key, record in zip(some, self._ledger.get([record_id for record_id, _ in some]), strict=True):
                self._compare(key, record)
        except LedgerUnavailable as error:
            logger.warning("results are waited for, but the ledger cannot be asked: %s", error)

    def _compare(self, key: Key, record: Record | None) -> None:
        """What the ledger says of a wanted request."""
        if record is not None and record.nonce == key[1]:
            if record.ended:
                self._arrived(result_of(record))
            return
        draft = self._drafts.get(key)
        # No record: the ledger has lost the put at a fail-over. No nonce: it has a stop that came before the request.
        may_put = draft is not None and (record is None or not record.nonce)
        if not (may_put and draft is not None and self._submit_again(draft)):
            self._hand_over(key, UnknownTask(f"the request {key[0]} is not known any more, its result cannot come"))

    def _arrived(self, result: TaskResult) -> None:
        if not self._hand_over((result.id, result.nonce), result):
            with self._changed:
                self._keep_early(result)

    def _hand_over(self, key: Key, arrived: TaskResult | UnknownTask) -> bool:
        """To everybody who waits for it; False when nobody does."""
        with self._changed:
            waiting = self._wanted.pop(key, ())
            self._drafts.pop(key, None)
            for arrivals in waiting:
                arrivals.append(arrived)
            self._changed.notify_all()
        return bool(waiting)

    def _keep_early(self, result: TaskResult) -> None:
        self._early[result.id, result.nonce] = result
        if len(self._early) > _EARLY_KEPT:
            del self._early[next(iter(self._early))]

    def _confirm(self) -> None:
        keys = [self._to_confirm.popleft() for _ in range(len(self._to_confirm))]
        if not keys or not self._owner:
            return
        reach("results.confirming")
        try:
            self._ledger.confirm(keys, self._owner)
            reach("results.confirmed")
        except LedgerUnavailable as error:
            logger.debug("the results are confirmed later: %s", error)
            self._to_confirm.extendleft(keys)
