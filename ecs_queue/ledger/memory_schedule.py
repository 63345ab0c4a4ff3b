"""The schedule of the in-memory ledger."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ecs_queue.ledger.memory_broken_items import index_of
from ecs_queue.ledger.memory_reader import MemoryReader
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.states import State


class MemorySchedule(MemoryReader):
    """The role `RequestSchedule`, except for `prune`."""

    _settings: ProtocolSettings

    def reschedule_poll(self, waits: Mapping[str, float]) -> None:
        """See `Ledger.reschedule_poll`."""
        with self._lock:
            now = self.now()
            for record_id, wait in waits.items():
                if self._due_at.get(record_id, now) > now and index_of(self._records[record_id]) == "due":
                    self._due_at[record_id] = now + wait

    def lease_due(self, limit: int) -> list[Record]:
        """See `Ledger.lease_due`."""
        return [without_request(record) for record in self._lease("due", limit)]

    def lease_due_retries(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.lease_due_retries`."""
        return self._lease(f"retry:{queue}", limit)

    def lease_unclaimed(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.lease_unclaimed`."""
        return self._lease(f"unclaimed:{queue}", limit)

    def _lease(self, index: str, limit: int) -> list[Record]:
        with self._lock:
            now = self.now()
            due = [self._isolate(key) for key in keys_until(now, self._due_at)]
            records = [r for r in due if r is not None and index_of(r) == index]
            for record in records[:limit]:
                self._due_at[record.id] = now + self._settings.lease_seconds
            return [msgspec.structs.replace(record) for record in records[:limit]]

    def lease_expired(self, limit: int) -> list[str]:
        """See `Ledger.lease_expired`."""
        with self._lock:
            now = self.now()
            ids = [key for key in keys_until(now, self._start_deadlines)[:limit] if self._isolate(key)]
            self._start_deadlines.update(dict.fromkeys(ids, now + self._settings.lease_seconds))
            return ids

    def poll_soon(self, within: float, limit: int) -> int:
        """See `Ledger.poll_soon`."""
        with self._lock:
            now = self.now()
            later = ((at, key) for key, at in self._due_at.items() if at > now + within)
            in_flight = [key for _, key in sorted(later, reverse=True) if index_of(self._records[key]) == "due"]
            ids = [key for key in in_flight[:limit] if self._records[key].state is State.LAUNCHED]
            for number, record_id in enumerate(ids, 1):
                self._due_at[record_id] = round(now + within * number / len(ids), 3)
            return len(ids)


def without_request(record: Record) -> Record:
    """A copy with the frozen arguments."""
    return msgspec.structs.replace(record, request=b"")


def keys_until(now: float, index: Mapping[str, float]) -> list[str]:
    """The keys whose time has come, earliest first."""
    return [key for at, key in sorted((at, key) for key, at in index.items() if at <= now)]
