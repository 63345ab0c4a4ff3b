"""Concurrency keys in the in-memory ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ecs_queue.ledger.memory_broken_items import MemoryBrokenItems
from ecs_queue.protocol.concurrency_keys import (
    NO_LIMIT,
    KeyCounts,
    KeyRoom,
    has_missed_turn,
    has_turn,
    holds_key_slot,
    waiting_order,
    waits_for_slot,
)
from ecs_queue.protocol.operations import ClaimRequest, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import MAX_KEY_WAITERS_CHECKED


class MemoryKeys(MemoryBrokenItems):
    """What holds and what waits for a slot of a key, found anew from the records each time. Thread-safe."""

    def count_waiting_for_keys(self, queues: Sequence[str]) -> dict[str, int]:
        """See `Ledger.count_waiting_for_keys`."""
        with self._lock:
            found = Counter(record.queue for record in self._sound_records() if waits_for_slot(record))
            return {queue: found[queue] for queue in queues}

    def count_of_key(self, queue: str, key: str) -> KeyCounts:
        """See `Ledger.count_of_key`."""
        with self._lock:
            return KeyCounts(in_flight=self._count_holders(queue, key), waiting=len(self._list_waiting(queue, key)))

    def _find_key_room(self, record: Record, claim_request: ClaimRequest | None, now: float) -> KeyRoom:
        """Return what limits the requests of the record's key. Requests that have missed their turn lose it."""
        if claim_request is None or not claim_request.key_limit or not record.concurrency_key:
            return NO_LIMIT
        queue, key = record.queue, record.concurrency_key
        free = claim_request.key_limit - self._count_holders(queue, key)
        if free > 0:
            for waiting in self._list_waiting(queue, key)[:MAX_KEY_WAITERS_CHECKED]:
                if waiting is not record and has_missed_turn(waiting, now):
                    waiting.waits_for_key = False
        own = waiting_order(record)
        return KeyRoom(free, sum(waiting_order(waiting) < own for waiting in self._list_waiting(queue, key)))

    def _follow_key_claim(self, record: Record, claim_request: ClaimRequest, code: ResultCode, now: float) -> None:
        """Wake as many of the first waiting requests as there are free slots after a claim."""
        if not record.concurrency_key or code not in (ResultCode.RUN_TASK, ResultCode.ASSIGNED, ResultCode.KEY_FULL):
            return
        number = MAX_KEY_WAITERS_CHECKED
        if claim_request.key_limit:
            free = claim_request.key_limit - self._count_holders(record.queue, record.concurrency_key)
            number = max(0, min(number, free))
        self._wake_waiting(record, number, number, now)

    def _follow_key(self, record: Record, had_slot: bool, had_turn: bool, now: float) -> None:
        """Wake the next waiting request when the record has left its slot, or its turn without taking one."""
        has_slot = holds_key_slot(record)
        gives_up_turn = had_turn and not has_slot and not waits_for_slot(record)
        if (had_slot and not has_slot) or gives_up_turn:
            self._wake_waiting(record, MAX_KEY_WAITERS_CHECKED, 1, now)

    def _wake_waiting(self, record: Record, among: int, number: int, now: float) -> None:
        """Let up to `number` of the first `among` requests that wait for the record's key be claimed now."""
        waiting = self._list_waiting(record.queue, record.concurrency_key)[:among]
        for each in [each for each in waiting if not has_turn(each, now)][:number]:
            each.not_before = now
            self._due_at[each.id] = now

    def _count_holders(self, queue: str, key: str) -> int:
        return sum(holds_key_slot(record) for record in self._records_of_key(queue, key))

    def _list_waiting(self, queue: str, key: str) -> list[Record]:
        return sorted(filter(waits_for_slot, self._records_of_key(queue, key)), key=waiting_order)

    def _records_of_key(self, queue: str, key: str) -> list[Record]:
        return [each for each in self._sound_records() if each.queue == queue and each.concurrency_key == key]
