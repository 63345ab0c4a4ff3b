"""Barriers on real servers: what an operation reports is durable, whichever connection wrote it, and however often."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ecs_queue.errors import LedgerUnavailable, WriteNotDurable
from ecs_queue.ledger import Ledger, RedisLedger
from ecs_queue.ledger.contracts import read_contracts
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.operations import RefusalKind, ResultCode, RunnerTask, SettleRequest, TaskUpdate
from ecs_queue.protocol.states import State
from ecs_queue.redis_connection import connect
from ecs_queue.server_keys import ledger_prefix, namespace_prefix
from tests.conformance.ledger.harness import claim_request, make_submission
from tests.protocol.settings import make_settings
from tests.replicated_servers import ValkeyCluster
from tests.servers import require_redis_binary, valkey_binary
from tests.wait import is_durable, wait_until

pytestmark = [pytest.mark.server]

_SETTINGS = make_settings(lease_seconds=0.05, settle_seconds=0.0)
_BINARIES = {"redis": require_redis_binary, "valkey": valkey_binary}


def _claim(ledger: RedisLedger) -> Any:
    return ledger.claim("job", claim_request("claim-2"))


def _refuse(ledger: RedisLedger) -> Any:
    return ledger.refused("job", "claim-1", RefusalKind.PERMANENT, 1.0, "no", 1)


_OPERATIONS: dict[str, Callable[[RedisLedger], Any]] = {
    "claim": _claim,
    "put_and_claim": lambda ledger: ledger.put_and_claim(_submission(ledger), claim_request("claim-2")),
    "reclaim": lambda ledger: ledger.reclaim("job", claim_request("claim-2")),
    "refused": _refuse,
    "task_absent": lambda ledger: ledger.task_absent("job", "claim-1", 1.0),
    "stop": lambda ledger: ledger.stop(["job"], "ann"),
    "adopt": lambda ledger: ledger.adopt(["job"], "bob"),
    "pause_queues": lambda ledger: ledger.pause_queues(["default"]),
    "resume_queues": lambda ledger: ledger.resume_queues(["default"]),
    "settle": lambda ledger: ledger.settle([SettleRequest(id="job")]),
    "update_runner_tasks": lambda ledger: ledger.update_runner_tasks([_stopped_task()]),
    "put_back": lambda ledger: ledger.put_back(["job"]),
    "may_stop": lambda ledger: ledger.may_stop([RunnerTask("runner", "arn:1")]),
    "close_silent": lambda ledger: ledger.close_silent(0, 10),
    "drain_runs": lambda ledger: ledger.drain_runs(["runner"]),
}


def _stopped_task() -> TaskUpdate:
    return TaskUpdate(id="job", launch=1, arn="arn:1", version=1, last_status="STOPPED", wait=1.0)


def _submission(ledger: RedisLedger) -> Any:
    return make_submission(accept_until=ledger.now() // 3600 * 3600 + 7200)


def _prepare(ledger: RedisLedger, operation: str) -> None:
    """Bring the request into the state that the operation starts from."""
    ledger.put([_submission(ledger)])
    if operation in ("reclaim", "refused", "task_absent"):
        ledger.claim("job", claim_request("claim-1"))
    if operation == "reclaim":
        wait_until(lambda: ledger.lease_due(1), "the lease is over", interval=0.005)
    if operation == "resume_queues":
        ledger.pause_queues(["default"])


class Pair:
    """A primary and its replica, which may be frozen."""

    def __init__(self, stack: ExitStack, binary: str) -> None:
        self._stack = stack
        self.primary = stack.enter_context(RedisServer(binary=binary))
        self.replica = stack.enter_context(RedisServer(binary=binary))
        with redis.Redis.from_url(self.replica.url) as client:
            admin: Any = client
            admin.replicaof("127.0.0.1", self.primary.port)
            wait_until(lambda: admin.info("replication")["master_link_status"] == "up", "the replica follows")

    def make_ledger(self, namespace: str, durability: str = "replica") -> RedisLedger:
        """Make a ledger with a connection of its own."""
        client = self._stack.enter_context(connect(self.primary.url, socket_timeout=5.0, max_connections=1))
        return RedisLedger(client, namespace, _SETTINGS, durability, barrier_seconds=0.1)

    @contextmanager
    def frozen_replica(self) -> Iterator[None]:
        """Freeze the replica once it has everything that was written so far."""
        with redis.Redis.from_url(self.primary.url) as client:
            admin: Any = client
            admin.set("written", 1)
            assert admin.wait(1, 5000) == 1
        os.kill(self.replica.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.replica.pid, signal.SIGCONT)


@pytest.fixture(scope="module", params=list(_BINARIES))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """One pair of each server program."""
    with ExitStack() as stack:
        yield Pair(stack, _BINARIES[request.param]())


def test_every_operation_with_a_barrier_is_among_them() -> None:
    contracts = read_contracts(*Ledger.__bases__)
    assert _OPERATIONS.keys() == {name for name, each in contracts.items() if each.has_barrier}


@pytest.mark.parametrize("operation", list(_OPERATIONS))
def test_an_operation_that_finds_its_work_done_is_not_durable_before_that_work_is(pair: Pair, operation: str) -> None:
    act, namespace = _OPERATIONS[operation], f"frozen-{operation}"
    first, second, third = (pair.make_ledger(namespace) for _ in range(3))
    _prepare(pair.make_ledger(namespace, "server"), operation)
    with pair.frozen_replica():
        with pytest.raises(WriteNotDurable):
            act(first)
        written = first.get(["job"])
        for other in (second, third):
            with pytest.raises(WriteNotDurable):  # another connection, which has written nothing so far
                act(other)
        assert first.get(["job"]) == written

    wait_until(lambda: is_durable(lambda: act(second)), "the replica has it")
    with redis.Redis.from_url(pair.primary.url) as client:
        assert not client.exists(f"{ledger_prefix(namespace)}r:")  # what is written before a barrier leaves nothing


def test_a_full_server_takes_stops_and_their_barriers(redis_url: str) -> None:
    with connect(redis_url, socket_timeout=5.0, max_connections=1) as client:
        ledger = RedisLedger(client, "test", _SETTINGS, "replica", barrier_seconds=0.05)
        ledger.put([_submission(ledger)])
        admin: Any = client
        admin.config_set("maxmemory", 1)
        try:
            for _ in range(2):
                with pytest.raises(WriteNotDurable, match="did not confirm"):
                    ledger.stop(["job"], "ann")
        finally:
            admin.config_set("maxmemory", 0)


class LossyConnection(redis.Connection):
    """A connection that closes when the server's answer to a script arrives, `losses` times: the script has run."""

    losses = 0
    sent: ClassVar[list[str]] = []

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """See `Connection`. Notes what is sent."""
        text = b"".join(command if isinstance(command, list) else [command])
        self.sent.extend(name for name in ("EVALSHA", "WAITAOF", "WAIT\r") if name.encode() in text)
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """See `Connection`. Loses the answer that has arrived."""
        answer = super().read_response(*args, **kwargs)
        if type(self).losses > 0 and self.sent and not isinstance(answer, redis.ResponseError):
            type(self).losses -= 1
            self.disconnect()  # type: ignore[no-untyped-call]
            raise redis.ConnectionError("the connection was lost")
        return answer


@pytest.fixture
def lossy(redis_url: str) -> Iterator[Callable[[int, str], RedisLedger]]:
    """Makes a ledger whose client library loses a number of answers, and repeats each call up to ten times."""
    with ExitStack() as stack:

        def make(losses: int, durability: str) -> RedisLedger:
            LossyConnection.sent, LossyConnection.losses = [], losses
            pool: Any = redis.ConnectionPool.from_url(
                redis_url, connection_class=LossyConnection, retry=Retry(NoBackoff(), 10)
            )
            client = stack.enter_context(redis.Redis.from_pool(pool))
            return RedisLedger(client, "test", make_settings(), durability, barrier_seconds=0.05)

        yield make


@pytest.mark.parametrize("losses", [1, 10])
def test_a_claim_whose_answers_were_lost_is_answered_when_the_library_repeats_it(
    redis_url: str, lossy: Callable[[int, str], RedisLedger], losses: int
) -> None:
    with connect(redis_url, socket_timeout=5.0, max_connections=1) as client:
        plain = RedisLedger(client, "test", make_settings())
        plain.put([_submission(plain)])
        assert plain.claim("job", None).code is ResultCode.NOT_CLAIMABLE  # the script is loaded
        result = lossy(losses, "server").claim("job", claim_request())
        assert LossyConnection.sent == ["EVALSHA"] * (losses + 1)
        assert result.code is ResultCode.RUN_TASK
        assert result.record is not None
        assert (result.record.state, result.record.calls) == (State.LAUNCHING, 1)


def test_eleven_answers_in_a_row_are_an_outage(redis_url: str, lossy: Callable[[int, str], RedisLedger]) -> None:
    with pytest.raises(LedgerUnavailable):
        lossy(11, "server").claim("job", claim_request())


@pytest.mark.parametrize("losses", [1, 2, 3])
def test_a_connection_lost_within_a_barrier_repeats_the_whole_operation(
    redis_url: str, lossy: Callable[[int, str], RedisLedger], losses: int
) -> None:
    """Alone on a new connection a barrier would be confirmed at once: that connection has written nothing."""
    with connect(redis_url, socket_timeout=5.0, max_connections=1) as client:
        RedisLedger(client, "test", make_settings()).stop(["other"], "ann")  # the script is loaded
    with pytest.raises(WriteNotDurable):
        lossy(losses, "replica").stop(["job"], "ann")
    assert LossyConnection.sent == ["EVALSHA", "WAIT\r"] * (losses + 1)


def test_a_call_with_a_barrier_that_the_former_primary_refused_is_made_at_the_new_one(cluster: ValkeyCluster) -> None:
    slot_key = namespace_prefix("test")
    with connect(cluster.url, socket_timeout=5.0, max_connections=1, slot_key=slot_key) as client:
        ledger = RedisLedger(client, "test", _SETTINGS, "replica", barrier_seconds=4.0)
        ledger.put([_submission(ledger)])
        cluster.fail_over(slot_key)
        assert _claim(ledger).code is ResultCode.RUN_TASK
