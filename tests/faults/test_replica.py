"""A primary that becomes a replica under running workers: `READONLY You can't write against a read only replica`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from ecs_queue.core.states import State
from ecs_queue.errors import LedgerUnavailable, NotDurable
from ecs_queue.local.redis_server import RedisServer
from tests.faults.site import Site, eventually
from tests.faults.wire import Forwarder
from tests.services import require_redis_binary


@pytest.fixture
def other(tmp_path: Path) -> Iterator[RedisServer]:
    """A second server."""
    with RedisServer(binary=require_redis_binary(), data_dir=tmp_path / "other", appendonly="always") as server:
        yield server


def _client(server: RedisServer) -> Any:
    return redis.Redis.from_url(server.url)


def _follow(replica: RedisServer, primary: RedisServer) -> None:
    """Make it a replica, and wait until it has everything."""
    with _client(replica) as client:
        client.replicaof("127.0.0.1", primary.port)
        eventually(lambda: client.info("replication")["master_link_status"] == "up", "the replica follows")


def _promote(server: RedisServer) -> None:
    with _client(server) as client:
        client.replicaof("NO", "ONE")


def test_a_primary_that_is_a_replica_for_a_while_loses_and_doubles_nothing(
    server: RedisServer, other: RedisServer, make_site: Callable[..., Site]
) -> None:
    site = make_site(server.url)
    names = [f"r{index}" for index in range(10)]
    site.submit(*names)
    site.worker()
    site.all_in(State.LAUNCHED, *names)
    _follow(other, server)
    with _client(server) as client:
        client.replicaof("127.0.0.1", other.port)

    site.end_all()
    with pytest.raises(LedgerUnavailable, match=r"takes no writes.*replica.*fail-over"):
        site.submit("a")
    eventually(lambda: site.failures("takes no writes"), "the worker has met the replica")
    _promote(server)

    site.all_in(State.SUCCESS, *names)
    site.submit("a")
    site.all_in(State.LAUNCHED, "a")
    assert len(site.launches()) == len(set(site.launches())) == len(names) + 1


def test_workers_and_clients_move_to_the_new_primary_though_their_connections_work(
    server: RedisServer, other: RedisServer, make_site: Callable[..., Site]
) -> None:
    """As behind a DNS name or a virtual address: nobody closes the connections to the old primary."""
    with Forwarder(server.port) as address:
        site = make_site(address.url)
        names = [f"r{index}" for index in range(10)]
        site.submit(*names)
        site.worker()
        site.all_in(State.LAUNCHED, *names)
        _follow(other, server)
        _promote(other)
        address.port = other.port
        with _client(server) as client:
            client.replicaof("127.0.0.1", other.port)

        site.end_all()
        site.all_in(State.SUCCESS, *names)
        eventually(lambda: _submits(site, "a"), "the client reaches the new primary")
        site.all_in(State.LAUNCHED, "a")
        with _client(other) as client:
            assert client.exists("ecs-queue:l:r:a")
        assert len(site.launches()) == len(set(site.launches())) == len(names) + 1


def _submits(site: Site, record_id: str) -> bool:
    try:
        site.submit(record_id)
    except LedgerUnavailable:
        return False
    return True


@pytest.mark.parametrize("operation", ["stop", "adopt"])
def test_a_repeated_call_that_changes_nothing_is_not_durable_before_the_first_one_is(
    server: RedisServer, other: RedisServer, make_site: Callable[..., Site], operation: str
) -> None:
    """It goes over another connection, which has written nothing that the server could wait for."""
    site = make_site(server.url, durability="replica", socket_timeout_seconds=1)
    site.submit("a")
    _follow(other, server)
    ledgers = [site.client().ledger for _ in range(3)]
    act: Callable[[Any], object] = lambda ledger: (  # noqa: E731
        ledger.stop(["a"], "ann") if operation == "stop" else ledger.adopt(["a"], "somebody")
    )
    os.kill(other.pid, signal.SIGSTOP)
    try:
        for ledger in ledgers:
            with pytest.raises(NotDurable):
                act(ledger)
    finally:
        os.kill(other.pid, signal.SIGCONT)

    eventually(lambda: _is_durable(lambda: act(ledgers[0])), "the replica has it")


def _is_durable(act: Callable[[], object]) -> bool:
    try:
        act()
    except NotDurable:
        return False
    return True
