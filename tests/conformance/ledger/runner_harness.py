"""A runner of the ledger under test, and its run as it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import redis

from ecs_queue.ledger import MemoryLedger
from ecs_queue.protocol.operations import ClaimRequest, EndRuling, OperationResult, ResultCode, SettleRequest
from ecs_queue.protocol.runs import NoTurn, Run, RunEnd, RunPhase, Turn
from ecs_queue.protocol.states import State
from ecs_queue.runs.operations import RunnerOperations
from ecs_queue.runs.redis_runner import RedisRunner, ServerError
from tests.conformance.ledger.harness import PREFIX, LedgerHarness, claim_request, task_update

ARN = "arn:runner"


class RedisConnection:
    """A `Connection` over redis-py, without its repetitions."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self.sent: list[str] = []

    def call(self, commands: Sequence[Sequence[Any]], timeout: float) -> list[Any]:
        """See `Connection`."""
        del timeout
        self.sent += [str(command[0]) for command in commands]
        with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies: list[Any] = pipe.execute(raise_on_error=False)
        is_unloaded = [isinstance(reply, redis.exceptions.NoScriptError) for reply in replies]
        return [
            ServerError("NOSCRIPT") if unloaded else ServerError(str(reply)) if isinstance(reply, Exception) else reply
            for unloaded, reply in zip(is_unloaded, replies, strict=True)
        ]


@dataclass
class RunnerHarness:
    """One process of a runner. Its methods say what a runner says."""

    harness: LedgerHarness
    operations: RunnerOperations
    name: str
    boot: str = "boot-1"
    arn: str = ARN

    def next(self, end: RunEnd | None = None) -> Turn | NoTurn:
        """Ask for a command."""
        return self.operations.next_turn(self.name, self.boot, self.arn, end)

    def beat(self, turn: int = 1) -> bool:
        """Say that a command runs."""
        return self.operations.beat(self.name, self.boot, turn)

    def leave(self, end: RunEnd | None = None) -> bool:
        """Ask to exit."""
        return self.operations.leave(self.name, self.boot, self.arn, end)

    def another_process(self, boot: str = "boot-2", arn: str = "arn:other") -> RunnerHarness:
        """A second process with the same name."""
        return RunnerHarness(self.harness, self.operations, self.name, boot, arn)

    @property
    def run(self) -> Run:
        """The run as it is stored."""
        found = read_run(self.harness, self.name)
        assert found is not None
        return found


def make_runner(harness: LedgerHarness, name: str) -> RunnerHarness:
    """Make a runner of this name."""
    if harness.client is None:
        assert isinstance(harness.ledger, MemoryLedger)
        return RunnerHarness(harness, harness.ledger, name)
    connection = RedisConnection(harness.client)
    return RunnerHarness(harness, RedisRunner(connection, PREFIX, clock=harness.clock), name)


def read_run(harness: LedgerHarness, name: str) -> Run | None:
    """Return a run as it is stored."""
    if harness.client is None:
        assert isinstance(harness.ledger, MemoryLedger)
        found = harness.ledger._runs.get(name)
        return None if found is None else msgspec.structs.replace(found)
    client: Any = harness.client
    stored = {field.decode(): value.decode() for field, value in client.hgetall(f"{PREFIX}run:{name}").items()}
    if not stored:
        return None
    payload = client.get(f"{PREFIX}turn:{name}")
    fields = {field: value for field, value in stored.items() if value}
    fields["payload"] = (payload or b"").decode()
    flags = {flag: True for flag in ("cancelled", "cancel") if flag in fields}
    return msgspec.convert({**fields, **flags, "name": name}, Run, strict=False)


def list_changed_runs(harness: LedgerHarness) -> list[str]:
    """The names of the runs that have changed."""
    if harness.client is None:
        assert isinstance(harness.ledger, MemoryLedger)
        return sorted(harness.ledger._changed_runs)
    client: Any = harness.client
    return sorted(name.decode() for name in client.zrange(f"{PREFIX}changed_runs", 0, -1))


def write_run(harness: LedgerHarness, run: Run) -> None:
    """Store a run."""
    if harness.client is None:
        assert isinstance(harness.ledger, MemoryLedger)
        harness.ledger._runs[run.name] = run
        return
    client: Any = harness.client
    stored = {
        k: "1" if v is True else v for k, v in msgspec.to_builtins(run).items() if k not in ("name", "payload") and v
    }
    client.set(f"{PREFIX}turn:{run.name}", run.payload)
    client.hset(f"{PREFIX}run:{run.name}", mapping=stored)


def assigned_run(name: str = "job.nonce-01.1", **fields: Any) -> Run:
    """A run that was just made for the request "job"."""
    known: dict[str, Any] = {"phase": RunPhase.ASSIGNED, "id": "job", "nonce": "nonce-01", "launch": 1}
    return Run(name=name, **{**known, "payload": "the command", "pool": "p", **fields})


def warm_claim(claim: str = "claim-1", **fields: Any) -> ClaimRequest:
    """What a worker passes to a claim of a warm queue's request."""
    known: dict[str, Any] = {"pool": "p", "payload": "the command", "max_attempts": 3, "spec_version": 2}
    return claim_request(claim, **{**known, **fields})


def start_launch(
    harness: LedgerHarness, record_id: str = "job", claims: Mapping[str, Any] | None = None, **fields: Any
) -> RunnerHarness:
    """Make a LAUNCHING record whose launch is to start a runner; `claims` are fields of its claim."""
    harness.make_queued(record_id, **fields)
    result = harness.ledger.claim(record_id, warm_claim(f"claim-{record_id}", **(claims or {})))
    assert result.code is ResultCode.RUN_TASK
    assert result.record is not None
    return make_runner(harness, result.record.run)


def start_runner(harness: LedgerHarness, record_id: str = "job", **fields: Any) -> RunnerHarness:
    """Make a LAUNCHED record whose runner has its command."""
    runner = start_launch(harness, record_id, **fields)
    assert isinstance(runner.next(), Turn)
    assert settle(harness, record_id).code is ResultCode.OK
    return runner


def make_idle(harness: LedgerHarness, record_id: str = "first") -> RunnerHarness:
    """Make a runner that has ended its first request and waits for the next one."""
    runner = start_runner(harness, record_id)
    runner.next(RunEnd(turn=1, exit_code=0))
    assert settle(harness, record_id).code is ResultCode.ENDED
    return runner


def settle(
    harness: LedgerHarness,
    record_id: str = "job",
    *,
    is_verified: bool = True,
    wait: float = 2.0,
    ruling: EndRuling = EndRuling.UNKNOWN,
) -> OperationResult:
    """Read the end in the run of a record, and settle."""
    run = read_run(harness, harness.get_record(record_id).run)
    end = None if run is None else run.end
    request = SettleRequest(id=record_id, end=end, is_verified=is_verified, wait=wait, ruling=ruling)
    return harness.ledger.settle([request])[0]


def end_task(
    harness: LedgerHarness, record_id: str = "job", state: State = State.FAILED, **fields: Any
) -> OperationResult:
    """ECS says that the task of the record's runner has stopped."""
    known: dict[str, Any] = {"end_state": state, "reason": "gone", "exit_code": 0, "max_attempts": 3}
    update = task_update(harness.get_record(record_id), version=9, **{**known, **fields})
    return harness.ledger.update_runner_tasks([update])[0]


def delete_run(harness: LedgerHarness, name: str) -> None:
    """The server loses a run."""
    if harness.client is None:
        assert isinstance(harness.ledger, MemoryLedger)
        del harness.ledger._runs[name]
        return
    client: Any = harness.client
    client.delete(f"{PREFIX}run:{name}")


def mark_stop(harness: LedgerHarness, record_id: str) -> None:
    """A client of a version that knows nothing of runs marks a stop."""
    set_fields(harness, record_id, stop_requested_by="ann", stop_requested_at=harness.clock.now)


def set_fields(harness: LedgerHarness, record_id: str, **fields: Any) -> None:
    """Store fields of a record as no operation of these settings and this version does."""
    if harness.client is None:
        assert isinstance(harness.ledger, MemoryLedger)
        for name, value in fields.items():
            setattr(harness.ledger._records[record_id], name, value)
        return
    client: Any = harness.client
    client.hset(f"{PREFIX}r:{record_id}", mapping=fields)
