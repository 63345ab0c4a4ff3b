"""What the Redis ledger shows of concurrency keys; lua/11_keys.lua keeps their indexes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ecs_queue.protocol.concurrency_keys import KeyCounts


class RedisKeys:
    """The part of the role `RequestReader` that is about concurrency keys."""

    _prefix: str
    _read_keys: Callable[[Sequence[Sequence[Any]]], list[Any]]

    def count_waiting_for_keys(self, queues: Sequence[str]) -> dict[str, int]:
        """See `Ledger.count_waiting_for_keys`."""
        found = self._read_keys([("ZCARD", f"{self._prefix}key_waiting:{queue}") for queue in queues])
        return {queue: int(number or 0) for queue, number in zip(queues, found, strict=True)}

    def count_of_key(self, queue: str, key: str) -> KeyCounts:
        """See `Ledger.count_of_key`. An entry of the index of those that wait begins with the key and a line break."""
        holders, waiting = f"{self._prefix}key_holders:{queue}|{key}", f"{self._prefix}key_waiting:{queue}"
        found = self._read_keys([("ZCARD", holders), ("ZLEXCOUNT", waiting, f"[{key}\n", f"({key}\v")])
        return KeyCounts(in_flight=int(found[0] or 0), waiting=int(found[1] or 0))
