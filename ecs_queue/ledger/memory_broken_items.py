"""The broken items of the in-memory ledger. Only a fault of this process, or a test, can make some."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ecs_queue.ledger.broken_items import BrokenItem, BrokenKind, DropResult
from ecs_queue.ledger.memory_coordination import MemoryCoordination, is_sound_entry
from ecs_queue.protocol.operations import OperationResult, ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.record_defects import build_broken_record, find_record_defect
from ecs_queue.protocol.settings import BROKEN_CHECK_SECONDS, MAX_BROKEN_CHECK_SECONDS, MAX_CLOCK_JITTER
from ecs_queue.protocol.states import State

#: What the clock showed, of those fields that the next step of a record depends on.
_CLOCK_FIELDS = ("lease_until", "not_before", "first_called_at", "last_claim_at", "launched_at")


class BrokenRecord(Exception):  # noqa: N818
    """A record cannot be used."""

    def __init__(self, record_id: str, reason: str) -> None:
        super().__init__(reason)
        self.record_id = record_id
        self.reason = reason


def answer_broken(operation: Callable[..., OperationResult]) -> Callable[..., OperationResult]:
    """Let an operation on a record that cannot be used answer BROKEN, and list the record."""

    @functools.wraps(operation)
    def run(ledger: Any, *arguments: Any, **named: Any) -> OperationResult:
        try:
            return operation(ledger, *arguments, **named)
        except BrokenRecord as error:
            ledger.keep_apart(error.record_id, error.reason)
            return OperationResult(ResultCode.BROKEN)

    return run


class MemoryBrokenItems(MemoryCoordination):
    """The role `BrokenItems`, over the records and indexes of `MemoryLedger`."""

    _records: dict[str, Record]
    _due_at: dict[str, float]
    _start_deadlines: dict[str, float]
    _forget_at: dict[str, float]
    _shown_at: float
    _find_record: Callable[[str], Record | None]
    _index_expiry: Callable[[Record], None]

    def list_broken(self) -> list[BrokenItem]:
        """See `Ledger.list_broken`."""
        with self._lock:
            return sorted(self._broken.values(), key=lambda item: (item.since, item.key))

    def check_broken(self, limit: int) -> int:
        """See `Ledger.check_broken`."""
        with self._lock:
            now = self.now()
            due = [item for key, item in self._broken.items() if self._check_at[key] <= now][:limit]
            for item in due:
                wait = max(BROKEN_CHECK_SECONDS, now - item.since)
                self._check_at[item.kind, item.name] = now + min(MAX_BROKEN_CHECK_SECONDS, wait)
            return sum(self._release_if_sound(item) for item in due)

    def drop_broken(self, items: Sequence[BrokenItem]) -> list[DropResult]:
        """See `Ledger.drop_broken`."""
        with self._lock:
            return [self._drop(item) for item in items]

    def keep_apart(self, record_id: str, reason: str) -> None:
        """List a record that cannot be used, and take it out of its indexes."""
        self._note_broken(BrokenKind.RECORD, record_id, reason)
        self._due_at.pop(record_id, None)
        self._start_deadlines.pop(record_id, None)

    def _isolate(self, record_id: str) -> Record | None:
        """Return the record; None for one that is unknown or cannot be used, which is kept apart."""
        try:
            record = self._find_record(record_id)
        except BrokenRecord as error:
            self.keep_apart(record_id, error.reason)
            return None
        if record is None and record_id in self._due_at:
            self.keep_apart(record_id, "there is no record of this id")
        return record

    def _show(self, record_id: str) -> Record | None:
        """Return a copy of the record; in place of one that cannot be used, what `build_broken_record` makes of it."""
        try:
            record = self._find_record(record_id)
        except BrokenRecord as error:
            found: Any = self._records[record_id]
            texts = {name: getattr(found, name, "") for name in ("nonce", "digest", "queue", "owner", "arn")}
            readable = {name: value for name, value in texts.items() if isinstance(value, str)}
            return build_broken_record(record_id, error.reason, **readable)
        return None if record is None else msgspec.structs.replace(record)

    def _entries(self, kind: str) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {
            BrokenKind.DEAD_LETTER: self._dead_letters,
            BrokenKind.WORKER: self._workers,
            BrokenKind.PAUSE: self._paused_since,
        }
        return found.get(kind, {})

    def _sound_records(self) -> Iterator[Record]:
        """The records that are not listed as broken. What is no record at all is listed; fields are not checked."""
        records: dict[str, Any] = self._records
        for record_id, record in list(records.items()):
            if not isinstance(record, Record):
                self.keep_apart(record_id, find_record_defect(record))
            elif (BrokenKind.RECORD.value, record_id) not in self._broken:
                yield record

    def now(self) -> float:
        """See `Ledger.now`. When the clock has gone back, brings everything that is due forward by as much."""
        now = super().now()
        shown, self._shown_at = self._shown_at, now
        if now < shown - MAX_CLOCK_JITTER:
            with self._lock:
                self._bring_forward(shown - now, now)
        return now

    def _bring_forward(self, seconds: float, now: float) -> None:
        for record in self._sound_records():
            if not record.is_terminal:
                for name in _CLOCK_FIELDS:
                    if (at := getattr(record, name)) > seconds:
                        setattr(record, name, round(at - seconds, 3))
                if self._due_at.get(record.id, now) > now:
                    self._due_at[record.id] = max(now, round(self._due_at[record.id] - seconds, 3))
        for key, at in self._check_at.items():
            self._check_at[key] = max(now, at - seconds) if at > now else at

    def _is_sound(self, item: BrokenItem) -> bool:
        """Return whether the item can be used, or is gone."""
        if item.kind != BrokenKind.RECORD:
            entries = self._entries(item.kind)
            return item.name not in entries or is_sound_entry(item.kind, item.name, entries[item.name])
        if item.name in self._records:
            return not find_record_defect(self._records[item.name])
        return False

    def _release_if_sound(self, item: BrokenItem) -> bool:
        if not self._is_sound(item):
            return False
        if item.kind == BrokenKind.RECORD:
            record = self._records[item.name]
            if not record.is_terminal:
                at = record.not_before if record.state is State.QUEUED else record.lease_until
                self._due_at.setdefault(record.id, max(self.now(), at))
                self._index_expiry(record)
        del self._broken[item.kind, item.name], self._check_at[item.kind, item.name]
        return True

    def _drop(self, item: BrokenItem) -> DropResult:
        if (item.kind, item.name) not in self._broken:
            return DropResult.NOT_LISTED
        if self._release_if_sound(item):
            return DropResult.SOUND
        del self._broken[item.kind, item.name], self._check_at[item.kind, item.name]
        if item.kind == BrokenKind.DEAD_LETTER:
            self._delete_dead_letter(item.name)
        elif item.kind == BrokenKind.RECORD:
            for index in (self._records, self._due_at, self._start_deadlines, self._forget_at):
                with suppress(KeyError):
                    del index[item.name]
        else:
            self._entries(item.kind).pop(item.name, None)
        return DropResult.DROPPED


def index_of(record: Record) -> str:
    """The index that a record stands in (ledger/base.py)."""
    if record.state is State.QUEUED:
        return f"{'retry' if record.not_before else 'unclaimed'}:{record.queue}"
    return "" if record.is_terminal else "due"
