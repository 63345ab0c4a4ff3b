"""The queries of the in-memory ledger."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec

from ecs_queue.ledger.entries import parse_cursor
from ecs_queue.ledger.memory_broken_items import MemoryBrokenItems
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.record_moves import is_delayed, is_starting, waits_since
from ecs_queue.protocol.states import State


class MemoryReader(MemoryBrokenItems):
    """The role `RequestReader`."""

    _terminal_counts: Counter[tuple[str, State]]

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """See `Ledger.get`."""
        return [record and without_payload(record) for record in self.get_with_payload(ids)]

    def get_with_payload(self, ids: Sequence[str]) -> list[Record | None]:
        """See `Ledger.get_with_payload`."""
        with self._lock:
            return [self._show(record_id) for record_id in ids]

    def find_id_by_arn(self, arn: str) -> str | None:
        """See `Ledger.find_id_by_arn`."""
        with self._lock:
            return next((r.id for r in self._sound_records() if r.arn == arn and not r.is_terminal), None)

    def list_undelivered(self, owner: str, limit: int) -> list[Record]:
        """See `Ledger.list_undelivered`."""
        with self._lock:
            found = [r for r in self._sound_records() if r.undelivered and r.owner == owner]
            records = [r for r in found if self._isolate(r.id)]
            return [without_payload(r) for r in sorted(records, key=lambda r: (r.finished_at, r.id))[:limit]]

    def list_records(self, after: str, limit: int) -> tuple[list[Record], str]:
        """See `Ledger.list_records`."""
        with self._lock:
            shown = [record for record_id in self._records if (record := self._show(record_id))]
            live = sorted((r for r in shown if not r.is_terminal), key=lambda r: -r.created_at)
            ended = sorted((r for r in shown if r.is_terminal), key=lambda r: -self._forget_at[r.id])
            _, offset = parse_cursor(after)
            page = (live + ended)[offset : offset + limit]
            return [without_payload(r) for r in page], f"live:{offset + limit}" if len(page) == limit else ""

    def count_by_state(self) -> dict[str, dict[State, int]]:
        """See `Ledger.count_by_state`."""
        with self._lock:
            live = Counter((record.queue, record.state) for record in self._sound_records() if not record.is_terminal)
            totals: dict[str, dict[State, int]] = defaultdict(dict)
            for (queue, state), number in (self._terminal_counts | live).items():
                totals[queue][state] = number
            return dict(totals)

    def find_oldest_queued(self, queues: Sequence[str]) -> dict[str, float]:
        """See `Ledger.find_oldest_queued`."""
        with self._lock:
            now = self.now()
            queued = [r for r in self._sound_records() if r.state is State.QUEUED and r.queue in queues]
            since = {r.id: waits_since(r) for r in queued if not is_delayed(r, now)}
            waiting = sorted((r for r in queued if r.id in since), key=lambda r: -since[r.id])
            return {r.queue: since[r.id] for r in waiting}

    def count_starting(self, queues: Sequence[str]) -> dict[str, int]:
        """See `Ledger.count_starting`."""
        with self._lock:
            found = Counter(record.queue for record in self._sound_records() if is_starting(record))
            return {queue: found[queue] for queue in queues}

    def count_delayed(self, queues: Sequence[str]) -> dict[str, int]:
        """See `Ledger.count_delayed`."""
        with self._lock:
            now = self.now()
            delayed = [r.queue for r in self._sound_records() if r.state is State.QUEUED and is_delayed(r, now)]
            return {queue: delayed.count(queue) for queue in queues}


def without_payload(record: Record) -> Record:
    """A copy for callers that have no use for the payload."""
    return msgspec.structs.replace(record, request=b"", args="")
