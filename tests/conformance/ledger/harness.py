"""A ledger under test with a fake clock, and helpers that bring a request into each state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from ecs_queue.ledger import Ledger, MemoryLedger, RedisLedger, WorkerInfo
from ecs_queue.protocol.capacity_fallback import CapacityEvent, CapacityReport
from ecs_queue.protocol.operations import ClaimRequest, OperationResult, RefusalKind, ResultCode, TaskUpdate
from ecs_queue.protocol.record import Record, Submission
from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.protocol.states import State
from ecs_queue.server_keys import ledger_prefix
from tests.fake_clock import START, FakeClock
from tests.protocol.settings import make_settings
from tests.worker_info import make_worker_info

NAMESPACE = "test"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PREFIX = ledger_prefix(NAMESPACE)
MINUTE = 60.0
HOUR = 3600.0
DAY = 86400.0
SETTINGS = make_settings(lease_seconds=30.0, settle_seconds=600.0, sweep_after_seconds=5.0)
#: Seconds after the last claim from which an empty list is proof.
ABSENCE_PROVABLE_AFTER = SETTINGS.lease_seconds + SETTINGS.settle_seconds


def make_submission(record_id: str = "job", **fields: Any) -> Submission:
    """Make a request that is accepted for a day, with the owner "airflow"."""
    known: dict[str, Any] = {
        "id": record_id,
        "nonce": "nonce-01",
        "digest": "d" * 32,
        "queue": "default",
        "owner": "airflow",
        "relaunch": "never_started",
        "request": b'{"command": ["true"]}',
        "accept_until": START + DAY,
    }
    return Submission(**(known | fields))


def claim_request(
    claim: str = "claim-1",
    worker: str = "worker-1",
    args: str = '{"count": 1}',
    target: str = "here",
    **fields: Any,
) -> ClaimRequest:
    """Make what a worker passes to a claim."""
    return ClaimRequest(claim=claim, worker=worker, args=args, target=target, **fields)


def make_refusal(kind: RefusalKind, wait: float = 2.0, max_attempts: int = 3) -> tuple[RefusalKind, float, str, int]:
    """Return arguments of `refused`: kind, wait, reason and max_attempts."""
    return kind, wait, f"no: {kind.value}", max_attempts


def task_update(record: Record, version: int = 1, **fields: Any) -> TaskUpdate:
    """Make an update of the record's task, which runs unless `end_state` is given."""
    known: dict[str, Any] = {
        "id": record.id,
        "launch": record.launch,
        "arn": record.arn,
        "version": version,
        "last_status": "STOPPED" if fields.get("end_state") else "RUNNING",
        "wait": 10.0,
    }
    return TaskUpdate(**(known | fields))


def make_report(name: str = "launch", **fields: Any) -> CapacityReport:
    """A report of a Spot interruption on the first of two variants."""
    known = {"variants": 2, "max_refusals": 3, "seconds": 300.0, "event": CapacityEvent.INTERRUPTED, "variant": 1}
    return CapacityReport(**{**known, "name": name, "reason": "taken back", **fields})


def make_worker(name: str) -> WorkerInfo:
    """Make a heartbeat."""
    numbers = {"concurrency": 4, "launches_in_progress": 1, "launched_total": 3, "ended_total": 4}
    return make_worker_info(name, host="h|{ost} ü", queues=["a b", "c"], started_at=START, **numbers)


@dataclass
class LedgerHarness:
    """A ledger and its clock. Its methods make the records that tests start from."""

    ledger: Ledger
    clock: FakeClock
    client: redis.Redis | None = None

    def advance(self, seconds: float) -> None:
        """Advance the clock, and delete the keys whose TTL is over: the server measures it by its own clock."""
        self.clock.advance(seconds)
        if self.client is not None:
            client: Any = self.client
            for member in client.zrangebyscore(f"{PREFIX}finished", "-inf", self.clock.now):
                client.delete(f"{PREFIX}r:{member.decode()}")

    def get_record(self, record_id: str = "job") -> Record:
        """Return it as it is now."""
        found = self.ledger.get_with_payload([record_id])[0]
        assert found is not None
        return found

    def get_state(self, record_id: str = "job") -> State:
        """Return it as it is now."""
        return self.get_record(record_id).state

    def make_queued(self, record_id: str = "job", **fields: Any) -> Record:
        """Make a QUEUED record."""
        assert self.ledger.put([make_submission(record_id, **fields)])[0].code is ResultCode.CREATED
        return self.get_record(record_id)

    def make_launching(self, record_id: str = "job", claim: str = "claim-1", **fields: Any) -> Record:
        """Make a LAUNCHING record."""
        self.make_queued(record_id, **fields)
        result = self.ledger.claim(record_id, claim_request(claim))
        assert result.code is ResultCode.RUN_TASK
        return self.get_record(record_id)

    def make_launched(self, record_id: str = "job", arn: str = "arn:1", **fields: Any) -> Record:
        """Make a LAUNCHED record."""
        record = self.make_launching(record_id, **fields)
        assert self.ledger.launched(record_id, record.nonce, record.launch, arn, 1.0).code is ResultCode.OK
        return self.get_record(record_id)

    def make_ended(self, record_id: str = "job", state: State = State.SUCCESS, **fields: Any) -> Record:
        """Make a record whose task has ended."""
        record = self.make_launched(record_id, arn=f"arn:{record_id}", **fields)
        assert self.update_task(record, end_state=state, exit_code=0).code is ResultCode.ENDED
        return self.get_record(record_id)

    def update_task(self, record: Record, version: int = 1, **fields: Any) -> OperationResult:
        """Update one task."""
        return self.ledger.update_tasks([task_update(record, version, **fields)])[0]

    def stop(self, record_id: str = "job", requested_by: str = "ann", launch: int = 0) -> OperationResult:
        """Stop one request."""
        return self.ledger.stop([record_id], requested_by, launch)[0]

    def reclaim(self, claim: str = "claim-2", worker: str = "worker-2") -> OperationResult:
        """Reclaim the record "job" as another worker."""
        return self.ledger.reclaim("job", claim_request(claim, worker, args="other", target="elsewhere"))

    def make_list_only(self, record_id: str = "job") -> Record:
        """Stop a LAUNCHING record and reclaim it after H, which returns LIST_TASKS."""
        self.stop(record_id)
        self.advance(ABSENCE_PROVABLE_AFTER)
        result = self.reclaim()
        assert result.code is ResultCode.LIST_TASKS
        return self.get_record(record_id)


def make_memory_harness(settings: ProtocolSettings = SETTINGS) -> LedgerHarness:
    """Make a harness of the in-memory ledger."""
    clock = FakeClock()
    return LedgerHarness(MemoryLedger(clock, settings), clock)


def make_redis_harness(client: redis.Redis, settings: ProtocolSettings = SETTINGS) -> LedgerHarness:
    """Make a harness of the Redis ledger on a server or a simulated one."""
    clock = FakeClock()
    ledger = RedisLedger(client, NAMESPACE, settings, clock=clock)
    return LedgerHarness(ledger, clock, client)
