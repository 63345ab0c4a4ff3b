"""A primary that becomes a replica under running workers: `READONLY You can't write against a read only replica`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import redis

from ecs_queue.errors import LedgerUnavailable, WriteNotDurable
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.states import State
from tests.faults.harness import FaultHarness
from tests.faults.tcp_forwarder import TcpForwarder
from tests.wait import is_durable, wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture
def replica(make_redis_server: Callable[[], RedisServer]) -> RedisServer:
    """A second server."""
    return make_redis_server()


def _client(server: RedisServer) -> Any:
    return redis.Redis.from_url(server.url)


def _follow(replica: RedisServer, primary: RedisServer) -> None:
    """Make it a replica, and wait until it has everything."""
    with _client(replica) as client:
        client.replicaof("127.0.0.1", primary.port)
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", "the replica follows")


def _promote(server: RedisServer) -> None:
    with _client(server) as client:
        client.replicaof("NO", "ONE")


def test_a_primary_that_is_a_replica_for_a_while_loses_and_doubles_nothing(
    own_redis: RedisServer, replica: RedisServer, make_harness: Callable[..., FaultHarness]
) -> None:
    harness = make_harness(own_redis.url)
    names = [f"r{index}" for index in range(10)]
    harness.submit(*names)
    harness.start_worker()
    harness.wait_for_state(State.LAUNCHED, *names)
    _follow(replica, own_redis)
    with _client(own_redis) as client:
        client.replicaof("127.0.0.1", replica.port)

    harness.end_all_tasks()
    with pytest.raises(LedgerUnavailable, match=r"takes no writes.*replica.*fail-over"):
        harness.submit("a")
    wait_until(lambda: harness.service_failures("takes no writes"), "the worker has met the replica")
    _promote(own_redis)

    harness.wait_for_state(State.SUCCESS, *names)
    harness.submit("a")
    harness.wait_for_state(State.LAUNCHED, "a")
    assert len(harness.started_by_values()) == len(set(harness.started_by_values())) == len(names) + 1


def test_workers_and_clients_move_to_the_new_primary_though_their_connections_work(
    own_redis: RedisServer, replica: RedisServer, make_harness: Callable[..., FaultHarness]
) -> None:
    """As behind a DNS name or a virtual address: no process closes the connections to the old primary."""
    with TcpForwarder(own_redis.port) as address:
        harness = make_harness(address.url)
        names = [f"r{index}" for index in range(10)]
        harness.submit(*names)
        harness.start_worker()
        harness.wait_for_state(State.LAUNCHED, *names)
        _follow(replica, own_redis)
        _promote(replica)
        address.port = replica.port
        with _client(own_redis) as client:
            client.replicaof("127.0.0.1", replica.port)

        harness.end_all_tasks()
        harness.wait_for_state(State.SUCCESS, *names)
        wait_until(lambda: _submits(harness, "a"), "the client reaches the new primary")
        harness.wait_for_state(State.LAUNCHED, "a")
        with _client(replica) as client:
            assert client.exists("{ecs-queue}:l:r:a")
        assert len(harness.started_by_values()) == len(set(harness.started_by_values())) == len(names) + 1


def _submits(harness: FaultHarness, record_id: str) -> bool:
    try:
        harness.submit(record_id)
    except LedgerUnavailable:
        return False
    return True


@pytest.mark.parametrize("operation", ["stop", "adopt"])
def test_a_repeated_call_that_changes_nothing_is_not_durable_before_the_first_one_is(
    own_redis: RedisServer, replica: RedisServer, make_harness: Callable[..., FaultHarness], operation: str
) -> None:
    """It goes over another connection, which has written nothing that the server could wait for."""
    harness = make_harness(own_redis.url, durability="replica", socket_timeout_seconds=1)
    harness.submit("a")
    _follow(replica, own_redis)
    ledgers = [harness.make_client().ledger for _ in range(3)]
    act: Callable[[Any], object] = lambda ledger: (  # noqa: E731
        ledger.stop(["a"], "ann") if operation == "stop" else ledger.adopt(["a"], "somebody")
    )
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        for ledger in ledgers:
            with pytest.raises(WriteNotDurable):
                act(ledger)
    finally:
        os.kill(replica.pid, signal.SIGCONT)

    wait_until(lambda: is_durable(lambda: act(ledgers[0])), "the replica has it")
