"""One ledger under test with its clock in our hands, and the shortest words for a request's life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from ecs_queue.core.protocol import Answer, ClaimOffer, Outcome, Refusal, RefusalKind, Rules, Word
from ecs_queue.core.record import Record, Submission
from ecs_queue.core.states import State
from ecs_queue.ledger import Ledger, MemoryLedger, RedisLedger
from ecs_queue.ledger.retention import Retention

NAMESPACE = "test"
PREFIX = f"{NAMESPACE}:l:"
MINUTE = 60.0
HOUR = 3600.0
DAY = 86400.0
#: Sums of eighths of a second are exact, so that both forms may be compared at the very boundary.
START = 1_700_000_000.0
RULES = Rules(lease_seconds=30.0, settle_seconds=600.0, ring_seconds=5.0)
#: When an empty list becomes proof, after the last claim.
H = RULES.lease_seconds + RULES.settle_seconds


class Clock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> float:
        return self.time


def submission(record_id: str = "job", **fields: Any) -> Submission:
    """A request accepted for a day, with the owner "airflow"."""
    known: dict[str, Any] = {
        "id": record_id,
        "nonce": "nonce-01",
        "digest": "d" * 32,
        "queue": "default",
        "owner": "airflow",
        "relaunch": "never_started",
        "body": b'{"command": ["true"]}',
        "accept_until": START + DAY,
    }
    return Submission(**(known | fields))


def offer(
    claim: str = "claim-1", worker: str = "worker-1", args: str = '{"count": 1}', target: str = "here", limit: int = 0
) -> ClaimOffer:
    """What a worker brings to a claim."""
    return ClaimOffer(claim=claim, worker=worker, args=args, target=target, limit=limit)


def refusal(kind: RefusalKind, wait: float = 2.0, max_attempts: int = 3) -> Refusal:
    """A definitive "no"."""
    return Refusal(kind=kind, reason=f"no: {kind.value}", wait=wait, max_attempts=max_attempts)


def seen(record: Record, version: int = 1, **fields: Any) -> Outcome:
    """What a look at the record's task showed; running unless told."""
    known: dict[str, Any] = {
        "id": record.id,
        "launch": record.launch,
        "arn": record.arn,
        "version": version,
        "last_status": "STOPPED" if fields.get("end") else "RUNNING",
        "wait": 10.0,
    }
    return Outcome(**(known | fields))


@dataclass
class Lab:
    """The ledger, and steps of a life that tests of later steps begin with."""

    ledger: Ledger
    clock: Clock
    client: redis.Redis | None = None

    def advance(self, seconds: float) -> None:
        """Time passes. A key's TTL runs by the server's own clock, which stands in nobody's hand: it is acted out."""
        self.clock.time += seconds
        if self.client is not None:
            client: Any = self.client
            for member in client.zrangebyscore(f"{PREFIX}finished", "-inf", self.clock.time):
                client.delete(f"{PREFIX}r:{member.decode()}")

    def record(self, record_id: str = "job") -> Record:
        """As it stands."""
        found = self.ledger.get([record_id])[0]
        assert found is not None
        return found

    def state(self, record_id: str = "job") -> State:
        """As it stands."""
        return self.record(record_id).state

    def queued(self, record_id: str = "job", **fields: Any) -> Record:
        """A new record."""
        assert self.ledger.put([submission(record_id, **fields)])[0].word is Word.CREATED
        return self.record(record_id)

    def launching(self, record_id: str = "job", claim: str = "claim-1", **fields: Any) -> Record:
        """A new record, claimed."""
        self.queued(record_id, **fields)
        answer = self.ledger.claim(record_id, offer(claim))
        assert answer.word is Word.CALL
        return self.record(record_id)

    def launched(self, record_id: str = "job", arn: str = "arn:1", **fields: Any) -> Record:
        """A new record with a task."""
        record = self.launching(record_id, **fields)
        assert self.ledger.launched(record_id, record.nonce, record.launch, arn, 1.0).word is Word.OK
        return self.record(record_id)

    def ended(self, record_id: str = "job", state: State = State.SUCCESS, **fields: Any) -> Record:
        """A new record whose task has ended."""
        record = self.launched(record_id, arn=f"arn:{record_id}", **fields)
        assert self.outcome(record, end=state, exit_code=0).word is Word.ENDED
        return self.record(record_id)

    def outcome(self, record: Record, version: int = 1, **fields: Any) -> Answer:
        """One look."""
        return self.ledger.outcomes([seen(record, version, **fields)])[0]

    def stop(self, record_id: str = "job", by: str = "ann", launch: int = 0) -> Answer:
        """One stop."""
        return self.ledger.stop([record_id], by, launch)[0]

    def taken_over(self, claim: str = "claim-2", worker: str = "worker-2") -> Answer:
        """Another worker's reclaim."""
        return self.ledger.reclaim("job", offer(claim, worker, args="other", target="elsewhere"))

    def looking(self, record_id: str = "job") -> Record:
        """Claimed, stopped, and taken over after H with the order to look."""
        self.stop(record_id)
        self.advance(H)
        answer = self.taken_over()
        assert answer.word is Word.LOOK
        return self.record(record_id)


def memory_lab(rules: Rules = RULES, retention: Retention | None = None) -> Lab:
    """In this process."""
    clock = Clock()
    return Lab(MemoryLedger(clock, rules, retention or Retention()), clock)


def redis_lab(client: redis.Redis, rules: Rules = RULES, retention: Retention | None = None) -> Lab:
    """On a server, or what plays one."""
    clock = Clock()
    ledger = RedisLedger(client, NAMESPACE, rules, retention or Retention(), clock=clock)
    return Lab(ledger, clock, client)
