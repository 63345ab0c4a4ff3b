"""Runs in the Redis ledger: the roles `RunOperations` and `WarmPools`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from ecs_queue.ledger.redis_codec import decode_operation_result, encode_fields, format_seconds
from ecs_queue.ledger.redis_script import Script, empty_if_wrong_type, is_wrong_type, wrap_redis_errors
from ecs_queue.protocol.operations import OperationResult, RunnerTask, SettleRequest, TaskUpdate
from ecs_queue.protocol.runs import Run

#: Time between two looks where no wait at the server is possible. Seconds.
_POLL_SECONDS = 0.25
_FIELDS = tuple(name for name in Run.__struct_fields__ if name not in ("name", "payload"))


class RedisRuns:
    """See `RunOperations` and `WarmPools`."""

    _redis: Any
    _prefix: str
    _keys: str
    _script: Script
    _block_seconds: float

    def settle(self, requests: Sequence[SettleRequest]) -> list[OperationResult]:
        """See `Ledger.settle`."""
        calls = [("settle", *_encode_settle(request)) for request in requests]
        return [decode_operation_result(reply) for reply in self._script.run_many(calls, durable=True)]

    def update_runner_tasks(self, updates: Sequence[TaskUpdate]) -> list[OperationResult]:
        """See `Ledger.update_runner_tasks`."""
        calls = [("update_runner_task", *encode_fields(update)) for update in updates]
        return [decode_operation_result(reply) for reply in self._script.run_many(calls, durable=True)]

    def put_back(self, ids: Sequence[str]) -> list[OperationResult]:
        """See `Ledger.put_back`."""
        calls = [("put_back", record_id) for record_id in ids]
        return [decode_operation_result(reply) for reply in self._script.run_many(calls, durable=True)]

    def read_runs(self, names: Sequence[str]) -> list[Run | None]:
        """See `WarmPools.read_runs`."""
        with wrap_redis_errors(self._keys), self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                self._read_run(pipe, name)
            return [_decode_run(name, values) for name, values in zip(names, _execute(pipe), strict=True)]

    def list_runs(self, limit: int | None = None) -> list[Run]:
        """See `WarmPools.list_runs`."""
        last = -1 if limit is None else limit - 1
        with wrap_redis_errors(self._keys), empty_if_wrong_type() as found:
            found += self._redis.zrange(f"{self._prefix}runners", 0, last)
        names = sorted(name.decode(errors="replace") for name in found)
        return [run for run in self.read_runs(names) if run is not None]

    def pop_changed_runs(self, seconds: float, limit: int) -> list[Run]:
        """See `WarmPools.pop_changed_runs`."""
        key = f"{self._prefix}changed_runs"
        with wrap_redis_errors(self._keys):
            wait = min(seconds, self._block_seconds)
            popped = self._redis.bzpopmin(key, wait) if wait > 0 else None
            if popped is None and wait > 0:
                return []
            if not self._block_seconds:
                time.sleep(min(seconds, _POLL_SECONDS))
            names = [] if popped is None else [popped[1].decode(errors="replace")]
            with self._redis.pipeline(transaction=False) as pipe:  # mostly there is no other one
                for name in names:
                    self._read_run(pipe, name)
                if limit > len(names):
                    pipe.zpopmin(key, limit - len(names))
                replies = _execute(pipe)
        runs = [_decode_run(name, values) for name, values in zip(names, replies, strict=False)]
        others = replies[-1] if limit > len(names) else []
        if others:
            runs += self.read_runs([name.decode(errors="replace") for name, _ in others])
        return [run for run in runs if run is not None]

    def _read_run(self, pipe: Any, name: str) -> None:
        pipe.hmget(f"{self._prefix}run:{name}", _FIELDS)

    def may_stop(self, tasks: Sequence[RunnerTask]) -> list[bool]:
        """See `WarmPools.may_stop`."""
        calls = [("may_stop", task.name, task.arn) for task in tasks]
        return [bool(reply) for replies in self._script.run_many(calls, durable=True) for reply in replies]

    def close_silent(self, offset: int, limit: int) -> tuple[list[Run], int]:
        """See `WarmPools.close_silent`."""
        next_offset, *names = self._script.run_many([("close_silent", offset, limit)], durable=True)[0]
        runs = self.read_runs([name.decode() for name in names])
        return [run for run in runs if run is not None], int(next_offset)

    def forget_runner(self, name: str) -> None:
        """See `WarmPools.forget_runner`."""
        self._script.run_one("forget_runner", name)

    def drain_runs(self, names: Sequence[str]) -> int:
        """See `WarmPools.drain_runs`."""
        return sum(self._script.run_many([("drain_run", name) for name in names], durable=True)) if names else 0


def _encode_settle(request: SettleRequest) -> tuple[Any, ...]:
    end = request.end
    how = ("", "", "", "") if end is None else (end.turn, end.exit_code, "1" if end.cancelled else "", end.mac)
    return (request.id, *how, "1" if request.is_verified else "", format_seconds(request.wait), request.ruling.value)


def _execute(pipe: Any) -> list[Any]:
    """Return the replies; among them are errors for keys of another type, and no other errors."""
    replies: list[Any] = pipe.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, Exception) and not is_wrong_type(reply):
            raise reply
    return replies


def _decode_run(name: str, values: Sequence[bytes | None] | Exception) -> Run | None:
    """None for an absent run, and for one that cannot be read: both count as closed."""
    if isinstance(values, Exception):
        return None
    stored = {field: value.decode(errors="replace") for field, value in zip(_FIELDS, values, strict=True) if value}
    if "phase" not in stored:
        return None
    try:
        return msgspec.convert({**stored, "name": name}, Run, strict=False)
    except msgspec.ValidationError:
        return None
