"""The ledger in Redis or Valkey: every operation is one run of the script in lua/, by the server's clock.

`durability` sets what an operation with a barrier (docs/protocol.md) waits for:

- `server`: nothing. With `appendfsync always` or a durable service nothing can be lost; with `everysec` a fail-over may
  lose the last second.
- `aof`: until the append-only file is on disk (WAITAOF: Valkey, Redis >= 7.2).
- `replica`: until one replica has the write (WAIT).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import redis

from ecs_queue.ledger.base import DeadLetter, WorkerInfo
from ecs_queue.ledger.batching import Call
from ecs_queue.ledger.redis_codec import (
    decode_dead_letter,
    decode_operation_result,
    decode_record,
    encode_fields,
    format_seconds,
)
from ecs_queue.ledger.redis_script import Script, read_config_value, read_info, wrap_redis_errors
from ecs_queue.ledger.server_versions import INFO_NOT_ALLOWED, find_aof_problems
from ecs_queue.protocol.event_health import EventFact, EventHealth
from ecs_queue.protocol.operations import ClaimRequest, OperationResult, RefusalKind, TaskUpdate
from ecs_queue.protocol.reasons import MANUAL_SEARCH_ADVICE
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.states import State

_STATES = frozenset(State)
#: Lua unpacks at most some 8,000 arguments.
_MAX_ARGUMENTS = 2000
#: Keys of dead letters may be long.
_MAX_KEYS = 100


class RedisLedger:
    """See the module's docstring. Thread-safe.

    Args:
        client: The connection pool; `close` closes it.
        namespace: What separates this ledger from others on the server.
        settings: The protocol's numbers.
        durability: "server", "aof" or "replica".
        barrier_seconds: The longest wait for `durability`; keep it below the client's socket time-out.
        clock: For tests, in place of the server's.
    """

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        settings: ProtocolSettings,
        durability: str = "server",
        barrier_seconds: float = 4.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._redis: Any = client  # redis-py's own types mix its sync and async replies
        self._prefix = f"{namespace}:l:"
        self._durability = durability
        self._script = Script(client, self._prefix, settings, durability, barrier_seconds, clock)

    def now(self) -> float:
        """The server's TIME."""
        return float(self._script.run_one("now"))

    def put(self, submissions: Sequence[Submission]) -> list[OperationResult]:
        """See `Ledger.put`."""
        return self._run_many([("put", *encode_fields(submission)) for submission in submissions])

    def put_and_claim(
        self, submission: Submission, claim_request: ClaimRequest
    ) -> tuple[OperationResult, OperationResult]:
        """See `Ledger.put_and_claim`."""
        call = ("put_and_claim", *encode_fields(submission), *encode_fields(claim_request))
        stored, claimed = self._script.run_batched(*call, durable=True)
        return decode_operation_result(stored), decode_operation_result(claimed)

    def claim(self, record_id: str, claim_request: ClaimRequest | None) -> OperationResult:
        """See `Ledger.claim`."""
        return self._run("claim", record_id, *encode_fields(claim_request or _NO_CLAIM), durable=True)

    def reclaim(self, record_id: str, claim_request: ClaimRequest) -> OperationResult:
        """See `Ledger.reclaim`."""
        return self._run("reclaim", record_id, claim_request.claim, claim_request.worker, durable=True)

    def launched(self, record_id: str, nonce: str, launch: int, arn: str, wait: float) -> OperationResult:
        """See `Ledger.launched`."""
        return self._run("launched", record_id, nonce, launch, arn, format_seconds(wait))

    def call_ambiguous(
        self, record_id: str, claim: str, wait: float, reason: str, call_completed: bool = False
    ) -> OperationResult:
        """See `Ledger.call_ambiguous`."""
        completed = "1" if call_completed else ""
        return self._run("call_ambiguous", record_id, claim, format_seconds(wait), reason, completed)

    def no_effect(self, record_id: str, claim: str, wait: float, reason: str) -> OperationResult:
        """See `Ledger.no_effect`."""
        return self._run("no_effect", record_id, claim, format_seconds(wait), reason)

    def refused(
        self, record_id: str, claim: str, kind: RefusalKind, wait: float, reason: str, max_attempts: int
    ) -> OperationResult:
        """See `Ledger.refused`."""
        call = ("refused", record_id, claim, kind.value, format_seconds(wait), reason, max_attempts)
        return self._run(*call, durable=True)

    def task_absent(
        self, record_id: str, claim: str, wait: float, advice: str = MANUAL_SEARCH_ADVICE
    ) -> OperationResult:
        """See `Ledger.task_absent`."""
        return self._run("task_absent", record_id, claim, format_seconds(wait), advice, durable=True)

    def update_tasks(self, updates: Sequence[TaskUpdate]) -> list[OperationResult]:
        """See `Ledger.update_tasks`."""
        return self._run_many([("update_task", *encode_fields(update)) for update in updates])

    def reschedule_poll(self, waits: Mapping[str, float]) -> None:
        """See `Ledger.reschedule_poll`."""
        flat = [value for record_id, wait in waits.items() for value in (record_id, format_seconds(wait))]
        self._script.run_many(_split_call("reschedule_poll", flat, _MAX_ARGUMENTS))

    def stop(self, ids: Sequence[str], requested_by: str, launch: int = 0) -> list[OperationResult]:
        """See `Ledger.stop`."""
        return self._run_many([("stop", record_id, requested_by, launch) for record_id in ids], durable=True)

    def adopt(self, ids: Sequence[str], owner: str) -> list[OperationResult]:
        """See `Ledger.adopt`."""
        return self._run_many([("adopt", record_id, owner) for record_id in ids], durable=True)

    def confirm(self, results: Sequence[tuple[str, str]], owner: str) -> list[OperationResult]:
        """See `Ledger.confirm`."""
        return self._run_many([("confirm", record_id, nonce, owner) for record_id, nonce in results])

    def _run(self, *call: Any, durable: bool = False) -> OperationResult:
        return decode_operation_result(self._script.run_batched(*call, durable=durable))

    def _run_many(self, calls: Sequence[Call], *, durable: bool = False) -> list[OperationResult]:
        return [decode_operation_result(reply) for reply in self._script.run_many(calls, durable=durable)]

    def lease_due(self, limit: int) -> list[Record]:
        """See `Ledger.lease_due`."""
        return self._run_records("lease_due", limit)

    def lease_due_retries(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.lease_due_retries`."""
        return self._run_records("lease_due_retries", queue, limit)

    def lease_unclaimed(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.lease_unclaimed`."""
        return self._run_records("lease_unclaimed", queue, limit)

    def lease_expired(self, limit: int) -> list[str]:
        """See `Ledger.lease_expired`."""
        return [record_id.decode() for record_id in self._script.run_one("lease_expired", limit)]

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """See `Ledger.get`."""
        with wrap_redis_errors(), self._redis.pipeline(transaction=False) as pipe:
            for record_id in ids:
                pipe.hgetall(f"{self._prefix}r:{record_id}")
            found = pipe.execute()
        flat = [(record_id.encode(), *chain(*fields.items())) for record_id, fields in zip(ids, found, strict=True)]
        return [decode_record(fields) if len(fields) > 1 else None for fields in flat]

    def find_id_by_arn(self, arn: str) -> str | None:
        """See `Ledger.find_id_by_arn`."""
        with wrap_redis_errors():
            found = self._redis.hget(f"{self._prefix}arns", arn)
        return found.decode() if found else None

    def list_undelivered(self, owner: str, limit: int) -> list[Record]:
        """See `Ledger.list_undelivered`."""
        return self._run_records("list_undelivered", owner, limit)

    def _run_records(self, *call: Any) -> list[Record]:
        return [decode_record(flat) for flat in self._script.run_one(*call)]

    def list_records(self, after: str, limit: int) -> tuple[list[Record], str]:
        """See `Ledger.list_records`. Records that end meanwhile may be missed or listed twice."""
        index, _, offset = (after or "live:0").partition(":")
        start = int(offset)
        with wrap_redis_errors():
            ids = [i.decode() for i in self._redis.zrevrange(self._prefix + index, start, start + limit - 1)]
        found = [record for record in self.get(ids) if record is not None]
        if len(ids) == limit:
            return found, f"{index}:{start + limit}"
        return found, "finished:0" if index == "live" else ""

    def count_by_state(self) -> dict[str, dict[State, int]]:
        """See `Ledger.count_by_state`."""
        totals: dict[str, dict[State, int]] = {}
        for key, number in self._read_hash("counts").items():
            queue, _, state = key.rpartition("|")
            if int(number) and state in _STATES:  # other states are a newer version's
                totals.setdefault(queue, {})[State(state)] = int(number)
        return totals

    def take_tokens(self, bucket: str, want: int, rate: float, burst: int, reserve: int = 0) -> tuple[int, float]:
        """See `Ledger.take_tokens`."""
        granted, wait = self._script.run_one("take_tokens", bucket, want, rate, burst, reserve)
        return int(granted), float(wait)

    def record_throttle(self, bucket: str) -> float:
        """See `Ledger.record_throttle`."""
        return float(self._script.run_one("record_throttle", bucket))

    def pause_queues(self, queues: Sequence[str]) -> None:
        """See `Ledger.pause_queues`."""
        self._script.run_many([("pause_queues", *queues)], durable=True)

    def resume_queues(self, queues: Sequence[str]) -> None:
        """See `Ledger.resume_queues`."""
        self._script.run_many([("resume_queues", *queues)], durable=True)

    def list_paused_queues(self) -> dict[str, float]:
        """See `Ledger.list_paused_queues`."""
        return {queue: float(since) for queue, since in self._read_hash("paused").items()}

    def record_event_facts(self, facts: Sequence[EventFact]) -> None:
        """See `Ledger.record_event_facts`."""
        self._script.run_many(
            [("record_event_fact", fact.source, fact.kind.value, format_seconds(fact.at)) for fact in facts]
        )

    def get_event_health(self) -> dict[str, EventHealth]:
        """See `Ledger.get_event_health`."""
        by_source: dict[str, dict[str, float]] = {}
        for key, at in self._read_hash("event_health").items():
            source, _, fact = key.rpartition("|")
            by_source.setdefault(source, {})[fact] = float(at)
        return {source: msgspec.convert(facts, EventHealth) for source, facts in by_source.items()}

    def poll_soon(self, within: float, limit: int) -> int:
        """See `Ledger.poll_soon`."""
        return int(self._script.run_one("poll_soon", format_seconds(within), limit))

    def begin_delivery(self, nonce: str, delivery: str) -> int:
        """See `Ledger.begin_delivery`."""
        return int(self._script.run_one("begin_delivery", nonce, delivery))

    def end_delivery(self, nonce: str) -> None:
        """See `Ledger.end_delivery`."""
        self._script.run_one("end_delivery", nonce)

    def add_dead_letter(self, dead_letter: DeadLetter) -> None:
        """See `Ledger.add_dead_letter`."""
        self._script.run_one("add_dead_letter", dead_letter.key, msgspec.json.encode(dead_letter))

    def list_dead_letters(self, limit: int, before: DeadLetter | None = None) -> list[DeadLetter]:
        """See `Ledger.list_dead_letters`."""
        flat = self._script.run_one("list_dead_letters", limit, "" if before is None else f"{before.added_at:.6f}")
        return [decode_dead_letter(at, encoded) for at, encoded in _pairs(flat)]

    def get_dead_letters(self, keys: Sequence[str]) -> list[DeadLetter | None]:
        """See `Ledger.get_dead_letters`."""
        flat = self._run_on_keys("get_dead_letters", keys)
        return [decode_dead_letter(at, encoded) if encoded else None for at, encoded in _pairs(flat)]

    def delete_dead_letters(self, keys: Sequence[str]) -> list[bool]:
        """See `Ledger.delete_dead_letters`."""
        return [bool(deleted) for deleted in self._run_on_keys("delete_dead_letters", keys)]

    def _run_on_keys(self, operation: str, keys: Sequence[str]) -> list[Any]:
        return [value for reply in self._script.run_many(_split_call(operation, keys, _MAX_KEYS)) for value in reply]

    def heartbeat(self, info: WorkerInfo, ttl: float) -> None:
        """See `Ledger.heartbeat`."""
        self._script.run_one("heartbeat", info.name, format_seconds(ttl), msgspec.json.encode(info))

    def list_workers(self) -> list[WorkerInfo]:
        """See `Ledger.list_workers`."""
        workers = [
            msgspec.structs.replace(msgspec.json.decode(info, type=WorkerInfo), last_seen_at=float(seen_at))
            for seen_at, info in _pairs(self._script.run_one("list_workers"))
        ]
        return sorted(workers, key=lambda info: info.name)

    def prune(self, limit: int) -> int:
        """See `Ledger.prune`. The records themselves expire by the TTL of their keys."""
        return int(self._script.run_one("prune", min(limit, 5000)))

    def _read_hash(self, key: str) -> dict[str, str]:
        with wrap_redis_errors():
            return {name.decode(): value.decode() for name, value in self._redis.hgetall(self._prefix + key).items()}

    def check_server(self) -> list[str]:
        """Check eviction, and what `durability` needs of the server. What may not be read is a note."""
        with wrap_redis_errors():
            info = read_info(self._redis)
            if not info:
                return [INFO_NOT_ALLOWED]
            appendfsync = read_config_value(self._redis, "appendfsync") if self._durability == "aof" else None
        findings = []
        if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
            findings.append(f"maxmemory-policy is {policy}: the server may drop records; set it to noeviction")
        if self._durability == "aof":
            findings += find_aof_problems(info, appendfsync)
        if self._durability == "replica" and not info.get("connected_slaves"):
            findings.append("durability = replica needs a replica, and none is connected to the server")
        return findings

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


#: Claims nothing: only ends an expired record.
_NO_CLAIM = ClaimRequest(claim="", worker="", args="", target="")


def _split_call(operation: str, arguments: Sequence[str], size: int) -> list[Call]:
    """Calls of one operation with at most `size` of the arguments each."""
    return [(operation, *arguments[start : start + size]) for start in range(0, len(arguments), size)]


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)
