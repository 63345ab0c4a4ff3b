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

from ecs_queue.core.flow import Flow, Note
from ecs_queue.core.lifecycle import LOOK_BY_HAND
from ecs_queue.core.protocol import Answer, ClaimOffer, Outcome, Refusal, Rules
from ecs_queue.core.record import Record, Submission
from ecs_queue.core.states import State
from ecs_queue.ledger.base import DeadLetter, WorkerInfo
from ecs_queue.ledger.codec import answer_of, letter_of, outcome_arguments, record_of, seconds
from ecs_queue.ledger.retention import Retention
from ecs_queue.ledger.script import Script, wrapping
from ecs_queue.ledger.together import Call

_STATES = frozenset(State)
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
        rules: Rules,
        retention: Retention,
        durability: str = "server",
        barrier_seconds: float = 4.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._redis: Any = client  # redis-py's own types mix its sync and async answers
        self._prefix = f"{namespace}:l:"
        self._durability = durability
        settings = (
            rules.lease_seconds,
            rules.settle_seconds,
            rules.startup_allowance,
            rules.ring_seconds,
            float(rules.max_in_flight),
            retention.seconds,
            retention.unconfirmed_cap,
            rules.accept_seconds,
            float(rules.max_deliveries),
        )
        shown = [seconds(value) for value in settings]
        self._script = Script(client, self._prefix, shown, durability, barrier_seconds, clock)

    def now(self) -> float:
        """The server's TIME."""
        return float(self._script.one("now"))

    def put(self, submissions: Sequence[Submission]) -> list[Answer]:
        """See `Ledger.put`."""
        return [answer_of(reply) for reply in self._script.run([_put_call(new) for new in submissions])]

    def admit(self, submission: Submission, offer: ClaimOffer) -> tuple[Answer, Answer]:
        """See `Ledger.admit`."""
        _, record_id, *put = _put_call(submission)
        _, _, *claim = _claim_call(submission.id, offer)
        stored, claimed = self._script.shared_durably("admit", record_id, *claim, *put)
        return answer_of(stored), answer_of(claimed)

    def claim(self, record_id: str, offer: ClaimOffer | None) -> Answer:
        """See `Ledger.claim`."""
        return answer_of(self._script.shared_durably(*_claim_call(record_id, offer)))

    def reclaim(self, record_id: str, offer: ClaimOffer) -> Answer:
        """See `Ledger.reclaim`."""
        call = ("reclaim", record_id, offer.claim, offer.worker)
        return answer_of(self._script.shared_durably(*call))

    def launched(self, record_id: str, nonce: str, launch: int, arn: str, wait: float) -> Answer:
        """See `Ledger.launched`."""
        return answer_of(self._script.shared("launched", record_id, nonce, launch, arn, seconds(wait)))

    def unsure(self, record_id: str, claim: str, wait: float, reason: str, answered: str = "") -> Answer:
        """See `Ledger.unsure`."""
        return answer_of(self._script.shared("unsure", record_id, claim, seconds(wait), reason, answered))

    def no_effect(self, record_id: str, claim: str, wait: float, reason: str) -> Answer:
        """See `Ledger.no_effect`."""
        return answer_of(self._script.shared("no_effect", record_id, claim, seconds(wait), reason))

    def refused(self, record_id: str, claim: str, refusal: Refusal) -> Answer:
        """See `Ledger.refused`."""
        wait = seconds(refusal.wait)
        call = ("refused", record_id, claim, refusal.kind.value, refusal.reason, wait, refusal.max_attempts)
        return answer_of(self._script.shared_durably(*call))

    def none(self, record_id: str, claim: str, wait: float, why: str = LOOK_BY_HAND) -> Answer:
        """See `Ledger.none`."""
        return answer_of(self._script.shared_durably("none", record_id, claim, seconds(wait), why))

    def outcomes(self, outcomes: Sequence[Outcome]) -> list[Answer]:
        """See `Ledger.outcomes`."""
        calls = [("outcome", *outcome_arguments(seen)) for seen in outcomes]
        return [answer_of(reply) for reply in self._script.run(calls)]

    def rest(self, looks: Mapping[str, float]) -> None:
        """See `Ledger.rest`."""
        flat = [value for record_id, wait in looks.items() for value in (record_id, seconds(wait))]
        starts = range(0, len(flat), _ARGUMENTS_AT_ONCE)
        self._script.run([("rest", *flat[start : start + _ARGUMENTS_AT_ONCE]) for start in starts])

    def stop(self, ids: Sequence[str], by: str, launch: int = 0) -> list[Answer]:
        """See `Ledger.stop`."""
        calls = [("stop", record_id, by, launch) for record_id in ids]
        return [answer_of(reply) for reply in self._script.run_durably(calls)]

    def adopt(self, ids: Sequence[str], owner: str) -> list[Answer]:
        """See `Ledger.adopt`."""
        calls = [("adopt", record_id, owner) for record_id in ids]
        return [answer_of(reply) for reply in self._script.run_durably(calls)]

    def confirm(self, results: Sequence[tuple[str, str]], owner: str) -> list[Answer]:
        """See `Ledger.confirm`."""
        calls = [("confirm", record_id, nonce, owner) for record_id, nonce in results]
        return [answer_of(reply) for reply in self._script.run(calls)]

    def due(self, limit: int) -> list[Record]:
        """See `Ledger.due`."""
        return [record_of(flat) for flat in self._script.one("due", limit)]

    def due_retries(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.due_retries`."""
        return [record_of(flat) for flat in self._script.one("due_retries", queue, limit)]

    def due_silent(self, queue: str, limit: int) -> list[Record]:
        """See `Ledger.due_silent`."""
        return [record_of(flat) for flat in self._script.one("due_silent", queue, limit)]

    def due_expired(self, limit: int) -> list[str]:
        """See `Ledger.due_expired`."""
        return [record_id.decode() for record_id in self._script.one("due_expired", limit)]

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """See `Ledger.get`."""
        with wrapping(), self._redis.pipeline(transaction=False) as pipe:
            for record_id in ids:
                pipe.hgetall(f"{self._prefix}r:{record_id}")
            found = pipe.execute()
        return [_from_hash(record_id, fields) for record_id, fields in zip(ids, found, strict=True)]

    def id_of(self, arn: str) -> str | None:
        """See `Ledger.id_of`."""
        with wrapping():
            found = self._redis.hget(f"{self._prefix}arns", arn)
        return found.decode() if found else None

    def undelivered(self, owner: str, limit: int) -> list[Record]:
        """See `Ledger.undelivered`."""
        return [record_of(flat) for flat in self._script.one("undelivered", owner, limit)]

    def page(self, after: str, limit: int) -> tuple[list[Record], str]:
        """See `Ledger.page`. Records that end meanwhile may be missed or shown twice."""
        index, _, offset = (after or "live:0").partition(":")
        start = int(offset)
        with wrapping():
            ids = [i.decode() for i in self._redis.zrevrange(self._prefix + index, start, start + limit - 1)]
        found = [record for record in self.get(ids) if record is not None]
        if len(ids) == limit:
            return found, f"{index}:{start + limit}"
        return found, "finished:0" if index == "live" else ""

    def counts(self) -> dict[str, dict[State, int]]:
        """See `Ledger.counts`."""
        with wrapping():
            flat = self._redis.hgetall(f"{self._prefix}counts")
        totals: dict[str, dict[State, int]] = {}
        for key, number in flat.items():
            queue, _, state = key.decode().rpartition("|")
            if int(number) and state in _STATES:  # others are a newer version's
                totals.setdefault(queue, {})[State(state)] = int(number)
        return totals

    def take(self, bucket: str, want: int, rate: float, burst: int, reserve: int = 0) -> tuple[int, float]:
        """See `Ledger.take`."""
        granted, wait = self._script.one("take", bucket, want, rate, burst, reserve)
        return int(granted), float(wait)

    def throttled(self, bucket: str) -> float:
        """See `Ledger.throttled`."""
        return float(self._script.one("throttled", bucket))

    def pause(self, queues: Sequence[str]) -> None:
        """See `Ledger.pause`."""
        self._script.run_durably([("pause", *queues)])

    def resume(self, queues: Sequence[str]) -> None:
        """See `Ledger.resume`."""
        self._script.run_durably([("resume", *queues)])

    def paused(self) -> dict[str, float]:
        """See `Ledger.paused`."""
        with wrapping():
            found = self._redis.hgetall(f"{self._prefix}paused")
        return {queue.decode(): float(since) for queue, since in found.items()}

    def note_events(self, notes: Sequence[Note]) -> None:
        """See `Ledger.note_events`."""
        self._script.run([("note_event", note.source, note.fact.value, seconds(note.at)) for note in notes])

    def event_flows(self) -> dict[str, Flow]:
        """See `Ledger.event_flows`."""
        with wrapping():
            found = self._redis.hgetall(f"{self._prefix}events")
        facts: dict[str, dict[str, float]] = {}
        for key, at in found.items():
            source, _, fact = key.decode().rpartition("|")
            facts.setdefault(source, {})[fact] = float(at)
        return {source: msgspec.convert(known, Flow) for source, known in facts.items()}

    def hasten(self, within: float, limit: int) -> int:
        """See `Ledger.hasten`."""
        return int(self._script.one("hasten", seconds(within), limit))

    def hold(self, nonce: str) -> int:
        """See `Ledger.hold`."""
        return int(self._script.one("hold", nonce))

    def let_go(self, nonce: str) -> None:
        """See `Ledger.let_go`."""
        self._script.one("let_go", nonce)

    def bury(self, letter: DeadLetter) -> None:
        """See `Ledger.bury`."""
        self._script.one("bury", letter.key, msgspec.json.encode(letter))

    def dead(self, limit: int, before: DeadLetter | None = None) -> list[DeadLetter]:
        """See `Ledger.dead`."""
        flat = self._script.one("dead", limit, "" if before is None else f"{before.at:.6f}")
        return [letter_of(at, letter) for at, letter in zip(flat[::2], flat[1::2], strict=True)]

    def letters(self, keys: Sequence[str]) -> list[DeadLetter | None]:
        """See `Ledger.letters`."""
        flat = self._of_keys("letters", keys)
        return [letter_of(at, letter) if letter else None for at, letter in zip(flat[::2], flat[1::2], strict=True)]

    def discard(self, keys: Sequence[str]) -> list[bool]:
        """See `Ledger.discard`."""
        return [bool(dropped) for dropped in self._of_keys("discard", keys)]

    def _of_keys(self, operation: str, keys: Sequence[str]) -> list[Any]:
        """The replies to an operation on keys of dead letters, which may be long: a hundred a run."""
        calls = [(operation, *keys[start : start + 100]) for start in range(0, len(keys), 100)]
        return [value for reply in self._script.run(calls) for value in reply]

    def heartbeat(self, info: WorkerInfo, ttl: float) -> None:
        """See `Ledger.heartbeat`."""
        self._script.one("heartbeat", info.name, seconds(ttl), msgspec.json.encode(info))

    def workers(self) -> list[WorkerInfo]:
        """See `Ledger.workers`."""
        flat = self._script.one("workers")
        heard = [
            msgspec.structs.replace(msgspec.json.decode(info, type=WorkerInfo), seen_at=float(seen_at))
            for seen_at, info in zip(flat[::2], flat[1::2], strict=True)
        ]
        return sorted(heard, key=lambda info: info.name)

    def prune(self, limit: int) -> int:
        """See `Ledger.prune`. The records themselves expire by the TTL of their keys."""
        return int(self._script.one("prune", min(limit, 5000)))

    def check(self) -> list[str]:
        """Findings about eviction, and about what `durability` needs of the server."""
        with wrapping():
            info = self._redis.info()
        findings = []
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            findings.append(
                f"maxmemory-policy is {policy}: the server may drop records; set it to noeviction (CONFIG SET)"
            )
        if self._durability == "aof" and not info.get("aof_enabled"):
            findings.append("durability = aof needs an append-only file: set appendonly yes on the server")
        if self._durability == "aof" and not _knows_waitaof(info):
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


def _put_call(new: Submission) -> Call:
    times = (seconds(new.accept_until), seconds(new.expires_at), seconds(new.time_limit))
    return ("put", new.id, new.nonce, new.digest, new.queue, new.owner, new.relaunch, new.body, *times)


def _claim_call(record_id: str, offer: ClaimOffer | None) -> Call:
    if offer is None:
        return ("claim", record_id, "", "", "", "", 0, "", 0)
    bound = (offer.limit, offer.nonce, offer.launch)
    return ("claim", record_id, offer.claim, offer.worker, offer.args, offer.target, *bound)


def _from_hash(record_id: str, fields: Mapping[bytes, bytes]) -> Record | None:
    if not fields:
        return None
    flat: list[bytes] = [record_id.encode()]
    for name, value in fields.items():
        flat += (name, value)
    return record_of(flat)


def _knows_waitaof(info: Mapping[str, Any]) -> bool:
    """Redis >= 7.2; every Valkey, which calls itself redis_version 7.2.4 too."""
    major, minor, *_ = (*str(info.get("redis_version", "0.0")).split("."), "0")
    return (int(major), int(minor)) >= (7, 2)
