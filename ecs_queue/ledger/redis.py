"""The ledger in Redis or Valkey: every operation is one run of the script in lua/, by the server's clock.

`durability`: `server` adds nothing (with `appendfsync always` or a durable service nothing can be lost; with
`everysec` a fail-over may lose the last second); `aof` waits after each claim, refusal, stop and
adoption until the append-only file is on disk (WAITAOF: Valkey, Redis >= 7.2); `replica` waits until one replica
has it (WAIT).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import redis

from ecs_queue.ledger.base import DeadLetter, WorkerInfo
from ecs_queue.ledger.batching import Call
from ecs_queue.ledger.redis_codec import (
    decode_dead_letter,
    decode_operation_result,
    decode_record,
    format_seconds,
    task_update_arguments,
)
from ecs_queue.ledger.redis_script import Script, wrap_redis_errors
from ecs_queue.ledger.retention import Retention
from ecs_queue.protocol.event_health import EventFact, EventHealth
from ecs_queue.protocol.operations import ClaimRequest, OperationResult, RefusalKind, TaskUpdate
from ecs_queue.protocol.reasons import MANUAL_SEARCH_ADVICE
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.states import State

_STATES = frozenset(State)
#: Only end what has expired.
_NO_CLAIM = ClaimRequest(claim="", worker="", args="", target="")
#: Lua unpacks at most some 8,000 arguments.
_ARGUMENTS_AT_ONCE = 2000


class RedisLedger:
    """See the module's docstring. Thread-safe; `clock` only for tests, in place of the server's.

    `barrier_seconds`: the longest wait for `durability`; keep it below the client's socket time-out.
    """

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        protocol_settings: ProtocolSettings,
        retention: Retention,
        durability: str = "server",
        barrier_seconds: float = 4.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._redis: Any = client  # redis-py's own types mix its sync and async answers
        self._prefix = f"{namespace}:l:"
        self._durability = durability
        settings = (
            protocol_settings.lease_seconds,
            protocol_settings.settle_seconds,
            protocol_settings.startup_allowance,
            protocol_settings.sweep_after_seconds,
            float(protocol_settings.max_in_flight),
            retention.seconds,
            retention.min_unconfirmed_seconds,
            protocol_settings.accept_seconds,
            float(protocol_settings.max_deliveries),
        )
        shown = [format_seconds(value) for value in settings]
        self._script = Script(client, self._prefix, shown, durability, barrier_seconds, clock)

    def now(self) -> float:
        """The server's TIME."""
        return float(self._script.run_one("now"))

    def put(self, submissions: Sequence[Submission]) -> list[OperationResult]:
        """See `Ledger.put`."""
        return [
            decode_operation_result(reply) for reply in self._script.run_many([_put_call(new) for new in submissions])
        ]

    def put_and_claim(
        self, submission: Submission, claim_request: ClaimRequest
    ) -> tuple[OperationResult, OperationResult]:
        """See `Ledger.put_and_claim`."""
        _, record_id, *put = _put_call(submission)
        _, _, *claim = _claim_call(submission.id, claim_request)
        stored, claimed = self._script.run_batched_durably("put_and_claim", record_id, *claim, *put)
        return decode_operation_result(stored), decode_operation_result(claimed)

    def claim(self, record_id: str, claim_request: ClaimRequest | None) -> OperationResult:
        """See `Ledger.claim`."""
        return decode_operation_result(self._script.run_batched_durably(*_claim_call(record_id, claim_request)))

    def reclaim(self, record_id: str, claim_request: ClaimRequest) -> OperationResult:
        """See `Ledger.reclaim`."""
        call = ("reclaim", record_id, claim_request.claim, claim_request.worker)
        return decode_operation_result(self._script.run_batched_durably(*call))

    def launched(self, record_id: str, nonce: str, launch: int, arn: str, wait: float) -> OperationResult:
        """See `Ledger.launched`."""
        return decode_operation_result(
            self._script.run_batched("launched", record_id, nonce, launch, arn, format_seconds(wait))
        )

    def call_ambiguous(
        self, record_id: str, claim: str, wait: float, reason: str, call_completed: str = ""
    ) -> OperationResult:
        """See `Ledger.call_ambiguous`."""
        return decode_operation_result(
            self._script.run_batched("call_ambiguous", record_id, claim, format_seconds(wait), reason, call_completed)
        )

    def no_effect(self, record_id: str, claim: str, wait: float, reason: str) -> OperationResult:
        """See `Ledger.no_effect`."""
        return decode_operation_result(
            self._script.run_batched("no_effect", record_id, claim, format_seconds(wait), reason)
        )

    def refused(
        self, record_id: str, claim: str, kind: RefusalKind, wait: float, reason: str, max_attempts: int
    ) -> OperationResult:
        """See `Ledger.refused`."""
        call = ("refused", record_id, claim, kind.value, reason, format_seconds(wait), max_attempts)
        return decode_operation_result(self._script.run_batched_durably(*call))

    def task_absent(
        self, record_id: str, claim: str, wait: float, advice: str = MANUAL_SEARCH_ADVICE
    ) -> OperationResult:
        """See `Ledger.task_absent`."""
        return decode_operation_result(
            self._script.run_batched_durably("task_absent", record_id, claim, format_seconds(wait), advice)
        )

    def update_tasks(self, updates: Sequence[TaskUpdate]) -> list[OperationResult]:
        """See `Ledger.update_tasks`."""
        calls = [("update_task", *task_update_arguments(seen)) for seen in updates]
        return [decode_operation_result(reply) for reply in self._script.run_many(calls)]

    def reschedule_poll(self, waits: Mapping[str, float]) -> None:
        """See `Ledger.reschedule_poll`."""
        flat = [value for record_id, wait in waits.items() for value in (record_id, format_seconds(wait))]
        starts = range(0, len(flat), _ARGUMENTS_AT_ONCE)
        self._script.run_many([("reschedule_poll", *flat[start : start + _ARGUMENTS_AT_ONCE]) for start in starts])

    def stop(self, ids: Sequence[str], requested_by: str, launch: int = 0) -> list[OperationResult]:
        """See `Ledger.stop`."""
        calls = [("stop", record_id, requested_by, launch) for record_id in ids]
        return [decode_operation_result(reply) for reply in self._script.run_many_durably(calls)]

    def adopt(self, ids: Sequence[str], owner: str) -> list[OperationResult]:
        """See `Ledger.adopt`."""
        calls = [("adopt", record_id, owner) for record_id in ids]
        return [decode_operation_result(reply) for reply in self._script.run_many_durably(calls)]

    def confirm(self, results: Sequence[tuple[str, str]], owner: str) -> list[OperationResult]:
        """See `Ledger.confirm`."""
        calls = [("confirm", record_id, nonce, owner) for record_id, nonce in results]
        return [decode_operation_result(reply) for reply in self._script.run_many(calls)]

    def lease_due(self, limit: int) -> list[Record]:
        """See `Ledger.lease_due`."""
        return [decode_record(flat) for flat in self._script.run_one("lease_due", limit)]

    def lease_due_retries(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.lease_due_retries`."""
        return [decode_record(flat) for flat in self._script.run_one("lease_due_retries", queue, limit)]

    def lease_unclaimed(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.lease_unclaimed`."""
        return [decode_record(flat) for flat in self._script.run_one("lease_unclaimed", queue, limit)]

    def lease_expired(self, limit: int) -> list[str]:
        """See `Ledger.lease_expired`."""
        return [record_id.decode() for record_id in self._script.run_one("lease_expired", limit)]

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """See `Ledger.get`."""
        with wrap_redis_errors(), self._redis.pipeline(transaction=False) as pipe:
            for record_id in ids:
                pipe.hgetall(f"{self._prefix}r:{record_id}")
            found = pipe.execute()
        return [_decode_hash(record_id, fields) for record_id, fields in zip(ids, found, strict=True)]

    def find_id_by_arn(self, arn: str) -> str | None:
        """See `Ledger.find_id_by_arn`."""
        with wrap_redis_errors():
            found = self._redis.hget(f"{self._prefix}arns", arn)
        return found.decode() if found else None

    def list_undelivered(self, owner: str, limit: int) -> list[Record]:
        """See `Ledger.list_undelivered`."""
        return [decode_record(flat) for flat in self._script.run_one("list_undelivered", owner, limit)]

    def list_records(self, after: str, limit: int) -> tuple[list[Record], str]:
        """See `Ledger.list_records`. Records that end meanwhile may be missed or shown twice."""
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
        with wrap_redis_errors():
            flat = self._redis.hgetall(f"{self._prefix}counts")
        totals: dict[str, dict[State, int]] = {}
        for key, number in flat.items():
            queue, _, state = key.decode().rpartition("|")
            if int(number) and state in _STATES:  # others are a newer version's
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
        self._script.run_many_durably([("pause_queues", *queues)])

    def resume_queues(self, queues: Sequence[str]) -> None:
        """See `Ledger.resume_queues`."""
        self._script.run_many_durably([("resume_queues", *queues)])

    def list_paused_queues(self) -> dict[str, float]:
        """See `Ledger.list_paused_queues`."""
        with wrap_redis_errors():
            found = self._redis.hgetall(f"{self._prefix}paused")
        return {queue.decode(): float(since) for queue, since in found.items()}

    def record_event_facts(self, facts: Sequence[EventFact]) -> None:
        """See `Ledger.record_event_facts`."""
        self._script.run_many(
            [("record_event_fact", note.source, note.kind.value, format_seconds(note.at)) for note in facts]
        )

    def get_event_health(self) -> dict[str, EventHealth]:
        """See `Ledger.get_event_health`."""
        with wrap_redis_errors():
            found = self._redis.hgetall(f"{self._prefix}event_health")
        facts: dict[str, dict[str, float]] = {}
        for key, at in found.items():
            source, _, fact = key.decode().rpartition("|")
            facts.setdefault(source, {})[fact] = float(at)
        return {source: msgspec.convert(known, EventHealth) for source, known in facts.items()}

    def poll_soon(self, within: float, limit: int) -> int:
        """See `Ledger.poll_soon`."""
        return int(self._script.run_one("poll_soon", format_seconds(within), limit))

    def begin_delivery(self, nonce: str) -> int:
        """See `Ledger.begin_delivery`."""
        return int(self._script.run_one("begin_delivery", nonce))

    def end_delivery(self, nonce: str) -> None:
        """See `Ledger.end_delivery`."""
        self._script.run_one("end_delivery", nonce)

    def add_dead_letter(self, dead_letter: DeadLetter) -> None:
        """See `Ledger.add_dead_letter`."""
        self._script.run_one("add_dead_letter", dead_letter.key, msgspec.json.encode(dead_letter))

    def list_dead_letters(self, limit: int, before: DeadLetter | None = None) -> list[DeadLetter]:
        """See `Ledger.list_dead_letters`."""
        flat = self._script.run_one("list_dead_letters", limit, "" if before is None else f"{before.added_at:.6f}")
        return [decode_dead_letter(at, letter) for at, letter in zip(flat[::2], flat[1::2], strict=True)]

    def get_dead_letters(self, keys: Sequence[str]) -> list[DeadLetter | None]:
        """See `Ledger.get_dead_letters`."""
        flat = self._run_in_batches("get_dead_letters", keys)
        return [
            decode_dead_letter(at, letter) if letter else None for at, letter in zip(flat[::2], flat[1::2], strict=True)
        ]

    def delete_dead_letters(self, keys: Sequence[str]) -> list[bool]:
        """See `Ledger.delete_dead_letters`."""
        return [bool(dropped) for dropped in self._run_in_batches("delete_dead_letters", keys)]

    def _run_in_batches(self, operation: str, keys: Sequence[str]) -> list[Any]:
        """The replies to an operation on keys of dead letters, which may be long: a hundred a run."""
        calls = [(operation, *keys[start : start + 100]) for start in range(0, len(keys), 100)]
        return [value for reply in self._script.run_many(calls) for value in reply]

    def heartbeat(self, info: WorkerInfo, ttl: float) -> None:
        """See `Ledger.heartbeat`."""
        self._script.run_one("heartbeat", info.name, format_seconds(ttl), msgspec.json.encode(info))

    def list_workers(self) -> list[WorkerInfo]:
        """See `Ledger.list_workers`."""
        flat = self._script.run_one("list_workers")
        heard = [
            msgspec.structs.replace(msgspec.json.decode(info, type=WorkerInfo), last_seen_at=float(seen_at))
            for seen_at, info in zip(flat[::2], flat[1::2], strict=True)
        ]
        return sorted(heard, key=lambda info: info.name)

    def prune(self, limit: int) -> int:
        """See `Ledger.prune`. The records themselves expire by the TTL of their keys."""
        return int(self._script.run_one("prune", min(limit, 5000)))

    def check_server(self) -> list[str]:
        """Findings about eviction, and about what `durability` needs of the server."""
        with wrap_redis_errors():
            info = self._redis.info()
        findings = []
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            findings.append(
                f"maxmemory-policy is {policy}: the server may drop records; set it to noeviction (CONFIG SET)"
            )
        if self._durability == "aof" and not info.get("aof_enabled"):
            findings.append("durability = aof needs an append-only file: set appendonly yes on the server")
        if self._durability == "aof" and not _supports_waitaof(info):
            findings.append(
                f"durability = aof needs WAITAOF, which Redis {info.get('redis_version')} has not: "
                "use Redis 7.2 or later, or Valkey"
            )
        if self._durability == "replica" and not info.get("connected_slaves"):
            findings.append("durability = replica needs a replica, and none is connected to the server")
        return findings

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()


def _put_call(submission: Submission) -> Call:
    times = (
        format_seconds(submission.accept_until),
        format_seconds(submission.expires_at),
        format_seconds(submission.time_limit),
    )
    return (
        "put",
        submission.id,
        submission.nonce,
        submission.digest,
        submission.queue,
        submission.owner,
        submission.relaunch,
        submission.request,
        *times,
    )


def _claim_call(record_id: str, claim_request: ClaimRequest | None) -> Call:
    # The fields of a `ClaimRequest` are in the order of the script's arguments.
    return "claim", record_id, *msgspec.structs.astuple(claim_request or _NO_CLAIM)


def _decode_hash(record_id: str, fields: Mapping[bytes, bytes]) -> Record | None:
    if not fields:
        return None
    flat: list[bytes] = [record_id.encode()]
    for name, value in fields.items():
        flat += (name, value)
    return decode_record(flat)


def _supports_waitaof(info: Mapping[str, Any]) -> bool:
    """Redis >= 7.2; every Valkey, which calls itself redis_version 7.2.4 too."""
    major, minor, *_ = (*str(info.get("redis_version", "0.0")).split("."), "0")
    return (int(major), int(minor)) >= (7, 2)
