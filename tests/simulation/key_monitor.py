"""The invariants of concurrency keys, in other words than the rules' own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import CLAIM_RETRY_SECONDS, KEY_TURN_SECONDS
from ecs_queue.protocol.states import State

_Key = tuple[str, str]


class KeyMonitor:
    """Checks after each operation that no key has too many requests in flight, and that none waits for nothing.

    Args:
        limit: `max_per_key`; 0: none.
        report_violation: Called with what must not happen.
        coverage: Where is counted what was met.
    """

    def __init__(self, limit: int, report_violation: Callable[[str], None], coverage: Counter[str]) -> None:
        self._limit = limit
        self._report_violation = report_violation
        self._coverage = coverage
        self._in_flight: dict[_Key, set[str]] = {}
        self._queued: dict[_Key, list[tuple[int, float, str]]] = {}

    def forget(self) -> None:
        """Forget what was seen before a fail-over."""
        self._in_flight, self._queued = {}, {}

    def check(self, operation: str, records: Iterable[Record], now: float) -> None:
        """Check the records after an operation."""
        if not self._limit:
            return
        by_key: dict[_Key, list[Record]] = defaultdict(list)
        for record in records:
            if record.concurrency_key and not record.is_terminal:
                by_key[record.queue, record.concurrency_key].append(record)
        for key, found in by_key.items():
            in_flight = {r.id for r in found if r.state is not State.QUEUED}
            if operation in ("claim", "put_and_claim"):
                self._check_claim(key, found, in_flight)
            self._check_waiting(key, found, in_flight, now)
            self._in_flight[key] = in_flight
            # A request that was passed over once, or whose turn is not yet, delays no other request.
            self._queued[key] = [_order(r) for r in found if r.waits_for_key and now - r.not_before < KEY_TURN_SECONDS]

    def _check_claim(self, key: _Key, found: list[Record], in_flight: set[str]) -> None:
        before = self._in_flight.get(key, set())
        for claimed in (r for r in found if r.id in in_flight - before and r.args):
            if len(in_flight) > self._limit:
                self._report_violation(f"{claimed.id} is claimed, with it {sorted(in_flight)} of its key are in flight")
            others = [order for order in self._queued.get(key, ()) if order < _order(claimed)]
            self._coverage["claim before others of its key"] += bool(self._queued.get(key))
            if len(others) >= self._limit - len(before & in_flight):
                self._report_violation(f"{claimed.id} is claimed before {others}, which wait for its key")

    def _check_waiting(self, key: _Key, found: list[Record], in_flight: set[str], now: float) -> None:
        """While a slot is free, the first one that waits may be claimed, or may be soon."""
        waiting = [record for record in found if record.waits_for_key]
        self._coverage["wait for a key"] += bool(waiting)
        if not waiting or len(in_flight) >= self._limit:
            return
        if all(record.not_before > now + CLAIM_RETRY_SECONDS + 0.001 for record in waiting):
            self._report_violation(f"{[r.id for r in waiting]} wait for the key {key[1]}, which is free")


def _order(record: Record) -> tuple[int, float, str]:
    return -record.priority, max(record.created_at, record.delayed_until), record.id
