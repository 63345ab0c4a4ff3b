"""The broken items of the ledger in Redis (lua/70_broken_items.lua), and decoding that keeps them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
import redis

from ecs_queue.error_text import typed_error_text
from ecs_queue.ledger.base import DeadLetter, WorkerInfo
from ecs_queue.ledger.broken_items import BrokenItem, BrokenKind, DropResult
from ecs_queue.ledger.redis_codec import decode_dead_letter, decode_record, decode_worker
from ecs_queue.ledger.redis_script import Script, is_wrong_type, wrap_redis_errors
from ecs_queue.protocol.record import Record

#: What decoders raise for bytes that they cannot decode.
DECODE_ERRORS = (ValueError, TypeError, OverflowError, msgspec.MsgspecError)
#: Times from here on have no date. Seconds since the epoch.
_MAX_TIME = 1e11
#: The hashes whose values only a client can check, because the scripts do not decode them.
_ENTRY_KEYS = {BrokenKind.DEAD_LETTER: "dead_letters", BrokenKind.WORKER: "workers"}


class RedisBrokenItems:
    """A part of `RedisLedger`: the role `BrokenItems`."""

    _redis: Any
    _prefix: str
    _keys: str
    _script: Script

    def list_broken(self) -> list[BrokenItem]:
        """See `Ledger.list_broken`."""
        with wrap_redis_errors(self._keys):
            try:
                found = self._redis.hgetall(f"{self._prefix}broken")
            except redis.exceptions.ResponseError as error:
                if not is_wrong_type(error):
                    raise
                reason = "it holds no hash; a worker sets it aside with the next broken item"
                return [BrokenItem(kind=BrokenKind.KEY.value, name="broken", since=0.0, reason=reason)]
        return sorted(map(_decode_item, found, found.values()), key=lambda item: (item.since, item.key))

    def check_broken(self, limit: int) -> int:
        """See `Ledger.check_broken`."""
        return int(self._script.run_one("check_broken", limit))

    def drop_broken(self, items: Sequence[BrokenItem]) -> list[DropResult]:
        """See `Ledger.drop_broken`."""
        return [self._drop(item) for item in items]

    def _drop(self, item: BrokenItem) -> DropResult:
        name = _encode_name(item.name)
        value = b""
        key = next((key for kind, key in _ENTRY_KEYS.items() if kind.value == item.kind), None)
        if key:
            with wrap_redis_errors(self._keys):
                value = self._redis.hget(f"{self._prefix}{key}", name) or b""
            if value and _can_decode(BrokenKind(item.kind), name, value):
                self._script.run_one("release_entry", item.kind, name)
                return DropResult.SOUND
        (code,) = self._script.run_one("drop_broken", _encode_name(item.kind), name, value)
        return DropResult(code.decode())

    def _decode_records(self, replies: Sequence[Sequence[bytes]]) -> list[Record]:
        """Decode those that can be decoded, and keep the others apart."""
        found = []
        for flat in replies:
            try:
                found.append(decode_record(flat))
            except DECODE_ERRORS as error:
                self._script.run_one("set_record_apart", flat[0], f"it cannot be decoded: {type(error).__name__}")
        return found

    def _decode_dead_letters(self, triples: Iterator[tuple[bytes, bytes, bytes]]) -> list[DeadLetter | None]:
        return [
            self._decode_entry(BrokenKind.DEAD_LETTER, key, partial(decode_dead_letter, key, at, encoded))
            if at or encoded
            else None
            for key, at, encoded in triples
        ]

    def _decode_workers(self, triples: Iterator[tuple[bytes, bytes, bytes]]) -> list[WorkerInfo]:
        found = [
            self._decode_entry(BrokenKind.WORKER, name, partial(decode_worker, name, seen_at, info))
            for name, seen_at, info in triples
        ]
        return [worker for worker in found if worker is not None]

    def _decode_entry(self, kind: BrokenKind, name: bytes, decode: Callable[[], Any]) -> Any:
        """Return the decoded entry; None for one that cannot be decoded, which is listed as broken."""
        try:
            return decode()
        except DECODE_ERRORS as error:
            self._script.run_one(
                "set_entry_apart", kind.value, name, f"it cannot be decoded: {typed_error_text(error)}"
            )
            return None


def _can_decode(kind: BrokenKind, name: bytes, value: bytes) -> bool:
    try:
        if kind is BrokenKind.DEAD_LETTER:
            decode_dead_letter(name, b"0", value)
        else:
            seen_at, _, info = value.split(b" ", 2)
            decode_worker(name, seen_at, info)
    except DECODE_ERRORS:
        return False
    return True


def _decode_item(item: bytes, entry: bytes) -> BrokenItem:
    kind, _, name = item.decode("utf-8", "surrogateescape").partition(" ")
    since, _, rest = entry.decode("utf-8", "replace").partition(" ")
    try:
        at = float(since)
    except ValueError:
        at = 0.0
    if not 0.0 <= at < _MAX_TIME:  # nor is NaN a time
        at = 0.0
    return BrokenItem(kind=kind, name=name, since=at, reason=rest.partition(" ")[2])


def _encode_name(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
