"""The ledger in Redis or Valkey: every operation is one run of the script in lua/, by the server's clock.

`durability` sets what an operation with a barrier (docs/protocol.md) waits for:

- `server`: nothing. With `appendfsync always` or a durable service nothing can be lost; with `everysec` a fail-over may
  lose the last second.
- `aof`: until the append-only file is on disk (WAITAOF: Valkey, Redis >= 7.2).
- `replica`: until one replica has the write (WAIT).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import redis

from ecs_queue.findings import Finding, Reporter
from ecs_queue.ledger.base import DeadLetter, WorkerInfo
from ecs_queue.ledger.batching import Call
from ecs_queue.ledger.entries import count_keys_by_queue, parse_cursor
from ecs_queue.ledger.needed_rights import needed_rights
from ecs_queue.ledger.redis_broken_items import RedisBrokenItems
from ecs_queue.ledger.redis_codec import (
    decode_hashes,
    decode_operation_result,
    encode_fields,
    format_seconds,
    parse_number,
)
from ecs_queue.ledger.redis_keys import RedisKeys
from ecs_queue.ledger.redis_runs import RedisRuns
from ecs_queue.ledger.redis_script import Script, empty_if_wrong_type, is_wrong_type, wrap_redis_errors
from ecs_queue.ledger.server_checks import check_facts, read_facts
from ecs_queue.protocol.capacity_fallback import CapacityReport, CapacityState
from ecs_queue.protocol.event_health import EventFact, EventHealth
from ecs_queue.protocol.operations import ClaimRequest, OperationResult, RefusalKind, TaskUpdate
from ecs_queue.protocol.reasons import MANUAL_SEARCH_ADVICE
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.protocol.record_moves import is_delayed, waits_since
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.states import State
from ecs_queue.redis_connection import run_pipeline
from ecs_queue.server_keys import ledger_prefix
from ecs_queue.server_users import ServerUser

_STATES = frozenset(State)
#: Lua unpacks at most some 8,000 arguments.
_MAX_ARGUMENTS = 2000
#: Keys of dead letters may be long.
_MAX_KEYS = 100


class RedisLedger(RedisBrokenItems, RedisKeys, RedisRuns):
    """See the module's docstring. Thread-safe.

    Args:
        client: The connection pool; `close` closes it.
        namespace: What separates this ledger from others on the server.
        settings: The protocol's numbers.
        durability: "server", "aof" or "replica".
        barrier_seconds: The longest wait for `durability`; keep it below the client's socket time-out.
        clock: For tests, in place of the server's.
        block_seconds: The longest other wait, likewise; 0: none at the server.
    """

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        settings: ProtocolSettings,
        durability: str = "server",
        barrier_seconds: float = 4.0,
        clock: Callable[[], float] | None = None,
        block_seconds: float = 1.0,
    ) -> None:
        self._redis: Any = client  # redis-py's own types mix its sync and async replies
        self._prefix = ledger_prefix(namespace)
        self._namespace = namespace
        self._keys = f"{self._prefix}*"
        self._durability = durability
        self._block_seconds = block_seconds
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
        return [decode_hashes(id, fields) for id, fields in zip(ids, self._read_hashes("r", ids), strict=True)]

    def get_with_payload(self, ids: Sequence[str]) -> list[Record | None]:
        """See `Ledger.get_with_payload`. What of a payload changes between the two reads is of a later launch."""
        found = self._read_hashes("r", ids)
        payloads = self._read_hashes("payload", ids)
        return [decode_hashes(*each) for each in zip(ids, found, payloads, strict=True)]

    def _read_hashes(self, kind: str, ids: Sequence[str]) -> list[dict[bytes, bytes] | None]:
        """The hashes of these records; None in place of one whose key holds something else."""
        return self._read_keys([("HGETALL", f"{self._prefix}{kind}:{record_id}") for record_id in ids])

    def _read_keys(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The replies; None for a key that holds something else."""
        with wrap_redis_errors(self._keys):
            found = run_pipeline(self._redis, commands)
            for reply in found:
                if isinstance(reply, Exception) and not is_wrong_type(reply):
                    raise reply
        return [None if isinstance(reply, Exception) else reply for reply in found]

    def find_id_by_arn(self, arn: str) -> str | None:
        """See `Ledger.find_id_by_arn`."""
        with wrap_redis_errors(self._keys), empty_if_wrong_type() as found:
            found.append(self._redis.hget(f"{self._prefix}arns", arn))
        return found[0].decode(errors="replace") if found and found[0] else None

    def list_undelivered(self, owner: str, limit: int) -> list[Record]:
        """See `Ledger.list_undelivered`."""
        return self._run_records("list_undelivered", owner, limit)

    def _run_records(self, *call: Any) -> list[Record]:
        return self._decode_records(self._script.run_one(*call))

    def list_records(self, after: str, limit: int) -> tuple[list[Record], str]:
        """See `Ledger.list_records`. Records that end meanwhile may be missed or listed twice."""
        index, start = parse_cursor(after)
        members = self._read_index(index, start, start + limit - 1)
        ids = [member.decode(errors="surrogateescape") for member in members]
        found = [record for record in self.get(ids) if record is not None]
        if len(ids) == limit:
            return found, f"{index}:{start + limit}"
        return found, "finished:0" if index == "live" else ""

    def count_by_state(self) -> dict[str, dict[State, int]]:
        """See `Ledger.count_by_state`."""
        totals: dict[str, dict[State, int]] = {}
        for key, number in self._read_numbers("counts").items():
            queue, _, state = key.rpartition("|")
            if number and state in _STATES:  # other states are a newer version's
                totals.setdefault(queue, {})[State(state)] = int(number)
        return totals

    def find_oldest_queued(self, queues: Sequence[str]) -> dict[str, float]:
        """See `Ledger.find_oldest_queued`. A queue's requests stand in two indexes, by the time of their next check."""
        indexes = [f"{self._prefix}{index}:{queue}" for queue in queues for index in ("unclaimed", "retry")]
        found = self._read_keys([("ZRANGE", index, 0, 0) for index in indexes])
        ids = [members[0].decode(errors="surrogateescape") for members in found if members]
        queued = [record for record in self.get(ids) if record is not None and record.state is State.QUEUED]
        now = self.now() if any(record.delayed_until for record in queued) else 0.0
        since = [(waits_since(record), record.queue) for record in queued if not is_delayed(record, now)]
        return {queue: at for at, queue in sorted(since, reverse=True)}

    def count_starting(self, queues: Sequence[str]) -> dict[str, int]:
        """See `Ledger.count_starting`."""
        found = self._read_keys([("ZCARD", f"{self._prefix}starting:{queue}") for queue in queues])
        return {queue: int(number or 0) for queue, number in zip(queues, found, strict=True)}

    def count_delayed(self, queues: Sequence[str]) -> dict[str, int]:
        """See `Ledger.count_delayed`."""
        now = f"({format_seconds(self.now())}"
        found = self._read_keys([("ZCOUNT", f"{self._prefix}delayed:{queue}", now, "+inf") for queue in queues])
        return {queue: int(number or 0) for queue, number in zip(queues, found, strict=True)}

    def take_tokens(self, bucket: str, want: int, rate: float, burst: int, reserve: int = 0) -> tuple[int, float]:
        """See `Ledger.take_tokens`."""
        granted, wait = self._script.run_one("take_tokens", bucket, want, rate, burst, reserve)
        return int(granted), float(wait)

    def record_throttle(self, bucket: str) -> float:
        """See `Ledger.record_throttle`."""
        return float(self._script.run_one("record_throttle", bucket))

    def report_capacity(self, queue: str, report: CapacityReport) -> CapacityState:
        """See `Ledger.report_capacity`."""
        found = self._script.run_one("report_capacity", queue, *encode_fields(report))
        variant, refusals, until, reason, reported = found
        return CapacityState(
            variant=int(variant),
            refusals=int(refusals),
            until=float(until),
            reason=reason.decode(errors="replace"),
            reported=reported.decode(errors="replace"),
        )

    def pause_queues(self, queues: Sequence[str]) -> None:
        """See `Ledger.pause_queues`."""
        self._script.run_many([("pause_queues", *queues)], durable=True)

    def resume_queues(self, queues: Sequence[str]) -> None:
        """See `Ledger.resume_queues`."""
        self._script.run_many([("resume_queues", *queues)], durable=True)

    def list_paused_queues(self) -> dict[str, float]:
        """See `Ledger.list_paused_queues`."""
        paused = self._read_hash("paused")
        now = self.now() if any(parse_number(since) is None for since in paused.values()) else 0.0
        return {queue: now if (at := parse_number(since)) is None else at for queue, since in paused.items()}

    def record_event_facts(self, facts: Sequence[EventFact]) -> None:
        """See `Ledger.record_event_facts`."""
        self._script.run_many(
            [("record_event_fact", fact.source, fact.kind.value, format_seconds(fact.at)) for fact in facts]
        )

    def get_event_health(self) -> dict[str, EventHealth]:
        """See `Ledger.get_event_health`."""
        by_source: dict[str, dict[str, float]] = {}
        for key, at in self._read_numbers("event_health").items():
            source, _, fact = key.rpartition("|")
            by_source.setdefault(source, {})[fact] = at
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
        return [each for each in self._decode_dead_letters(_triples(flat)) if each is not None]

    def get_dead_letters(self, keys: Sequence[str]) -> list[DeadLetter | None]:
        """See `Ledger.get_dead_letters`."""
        flat = self._run_on_keys("get_dead_letters", keys)
        return self._decode_dead_letters(_triples(flat))

    def delete_dead_letters(self, keys: Sequence[str]) -> list[bool]:
        """See `Ledger.delete_dead_letters`."""
        return [bool(deleted) for deleted in self._run_on_keys("delete_dead_letters", keys)]

    def count_dead_letters(self) -> dict[str, int]:
        """See `Ledger.count_dead_letters`."""
        with wrap_redis_errors(self._keys), empty_if_wrong_type() as found:
            found += self._redis.zrange(f"{self._prefix}dead_letter_times", 0, -1)
        return count_keys_by_queue(key.decode(errors="replace") for key in found)

    def total_dead_letters(self) -> int:
        """See `Ledger.total_dead_letters`."""
        with wrap_redis_errors(self._keys), empty_if_wrong_type() as found:
            found.append(self._redis.zcard(f"{self._prefix}dead_letter_times"))
        return sum(found)

    def _run_on_keys(self, operation: str, keys: Sequence[str]) -> list[Any]:
        return [value for reply in self._script.run_many(_split_call(operation, keys, _MAX_KEYS)) for value in reply]

    def heartbeat(self, info: WorkerInfo, ttl: float) -> None:
        """See `Ledger.heartbeat`."""
        self._script.run_one("heartbeat", info.name, format_seconds(ttl), msgspec.json.encode(info))

    def list_workers(self) -> list[WorkerInfo]:
        """See `Ledger.list_workers`."""
        workers = self._decode_workers(_triples(self._script.run_one("list_workers")))
        return sorted(workers, key=lambda info: info.name)

    def prune(self, limit: int) -> int:
        """See `Ledger.prune`. The records themselves expire by the TTL of their keys."""
        return int(self._script.run_one("prune", min(limit, 5000)))

    def _read_numbers(self, key: str) -> dict[str, float]:
        """Return the entries of a hash that are numbers. The next `check_broken` lists the others."""
        found = ((name, parse_number(value)) for name, value in self._read_hash(key).items())
        return {name: number for name, number in found if number is not None}

    def _read_hash(self, key: str) -> dict[str, str]:
        """A hash that many items share; empty until the next `check_broken` if its key holds something else."""
        with wrap_redis_errors(self._keys), empty_if_wrong_type() as found:
            found += self._redis.hgetall(self._prefix + key).items()
        return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in found}

    def _read_index(self, index: str, first: int, last: int) -> list[bytes]:
        with wrap_redis_errors(self._keys), empty_if_wrong_type() as found:
            found += self._redis.zrevrange(self._prefix + index, first, last)
        return found

    def check_server(self, user: ServerUser = ServerUser.WORKER, durability: str = "") -> list[Finding]:
        """See `LedgerServer.check_server`."""
        durability = durability or self._durability
        rights = needed_rights(user, self._prefix, durability)
        with wrap_redis_errors(self._keys):
            facts = read_facts(self._redis, self._namespace, durability, rights, count_former=user is ServerUser.WORKER)
        return list(check_facts(Reporter("ledger"), facts, durability, user))

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


#: Claims nothing: only ends an expired record.
_NO_CLAIM = ClaimRequest(claim="", worker="", args="", target="")


def _split_call(operation: str, arguments: Sequence[str], size: int) -> list[Call]:
    """Calls of one operation with at most `size` of the arguments each."""
    return [(operation, *arguments[start : start + size]) for start in range(0, len(arguments), size)]


def _triples(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
    return zip(flat[::3], flat[1::3], flat[2::3], strict=True)
