"""Sentinels that differ, and primaries that take no connection or no write, on real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from ecs_queue.broker.failures import wrap_error
from ecs_queue.doctor.server import check_server
from ecs_queue.errors import WriteNotDurable
from ecs_queue.findings import Finding, Severity
from ecs_queue.ledger.redis import RedisLedger
from ecs_queue.local.redis_server import HOST, RedisServer
from ecs_queue.redis_connection import connect
from tests.protocol.settings import DEFAULT_SETTINGS
from tests.replicated_servers import SentinelDeployment, ValkeyCluster
from tests.servers import valkey_binary
from tests.wait import wait_until

pytestmark = pytest.mark.server

_SERVICE, _TAG = "mine", "{follow}"
#: Nothing fails over by itself here.
_NEVER_MILLISECONDS = 3_600_000


@pytest.fixture
def make_server() -> Iterator[Callable[[], RedisServer]]:
    """Starts servers without data."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(RedisServer(binary=valkey_binary()))


@pytest.fixture
def make_sentinel(tmp_path: Path) -> Iterator[Callable[[RedisServer], RedisServer]]:
    """Starts Sentinels that watch a primary of their own."""
    program = tmp_path / "valkey-sentinel"  # the name makes it a Sentinel
    program.symlink_to(valkey_binary())
    with ExitStack() as stack:

        def make(primary: RedisServer) -> RedisServer:
            settings = [
                f"sentinel monitor {_SERVICE} {HOST} {primary.port} 1",
                f"sentinel down-after-milliseconds {_SERVICE} {_NEVER_MILLISECONDS}",
            ]
            return stack.enter_context(RedisServer(binary=str(program), settings=settings))

        yield make


def url_of(*sentinels: RedisServer) -> str:
    return f"sentinel://{','.join(f'{HOST}:{each.port}' for each in sentinels)}/0?service={_SERVICE}"


def open_client(*sentinels: RedisServer) -> Any:
    return connect(url_of(*sentinels), socket_timeout=5.0, max_connections=8)


def open_plain(server: RedisServer) -> Any:
    """Return a client of one server that repeats nothing."""
    return redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0))


def port_of(client: Any) -> int:
    return int(client.info("server")["tcp_port"])


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_sentinel_that_names_a_former_primary_leads_nobody_there(
    make_server: Callable[[], RedisServer], make_sentinel: Callable[[RedisServer], RedisServer], position: int
) -> None:
    """Both take writes: those at the former one would be lost, and a client would go to and fro."""
    former, primary = make_server(), make_server()
    watched = [primary, primary]
    watched.insert(position, former)
    sentinels = [make_sentinel(each) for each in watched]
    with open_plain(former) as admin:
        before = int(admin.info("stats")["total_connections_received"])
        for _ in range(2):
            with open_client(*sentinels) as client, ThreadPoolExecutor(4) as threads:
                calls = [threads.submit(client.blpop, "nothing", 0.2) for _ in range(4)]  # each on its own connection
                assert [call.result() for call in calls] == [None] * 4
                assert port_of(client) == primary.port
        # The Sentinel there has its own two, to command and to listen.
        named = [each["name"] for each in admin.client_list()]
        assert "ecs-queue" not in named
        assert int(admin.info("stats")["total_connections_received"]) <= before + 2


def test_doctor_names_the_sentinels_that_differ_and_those_that_do_not_answer(
    make_server: Callable[[], RedisServer], make_sentinel: Callable[[RedisServer], RedisServer]
) -> None:
    former, primary = make_server(), make_server()
    stale, *others = (make_sentinel(each) for each in (former, primary, primary))

    def check(*sentinels: RedisServer) -> list[Finding]:
        findings = check_server("ledger", url_of(*sentinels), "server", 2.0)
        return [finding for finding in findings if finding.check == "server.sentinels"]

    (agreed,) = check(*others)
    assert (agreed.severity, agreed.text) == (Severity.OK, f"{HOST}:{primary.port} is named by all Sentinels (2)")
    (differing,) = check(stale, *others)
    assert differing.severity is Severity.WARNING
    assert f"{HOST}:{former.port} ({HOST}:{stale.port})" in differing.text
    others[0].kill()
    silent, _ = check(stale, *others)
    assert silent.text == f"no primary is named by 1 of 3 Sentinels: {HOST}:{others[0].port}"


def test_a_primary_that_has_lost_its_replicas_is_left_when_the_sentinels_name_another_one(
    make_server: Callable[[], RedisServer], make_sentinel: Callable[[RedisServer], RedisServer]
) -> None:
    """It is cut off from Sentinels and replicas, and not from the client; `min-replicas-to-write` stops its writes."""
    former, primary = make_server(), make_server()
    sentinel = make_sentinel(former)
    with open_client(sentinel) as client, open_plain(former) as admin, open_plain(sentinel) as watcher:
        client.set("a", 1)
        admin.config_set("min-replicas-to-write", 1)
        with pytest.raises(redis.exceptions.ResponseError, match="NOREPLICAS"):
            client.set("a", 2)
        watcher.execute_command("SENTINEL", "REMOVE", _SERVICE)
        watcher.execute_command("SENTINEL", "MONITOR", _SERVICE, HOST, primary.port, 1)
        wait_until(lambda: moves(client), "a write succeeds")
        assert port_of(client) == primary.port


def test_a_primary_that_confirms_nothing_any_more_is_left_when_the_sentinels_name_another_one(
    make_server: Callable[[], RedisServer], make_sentinel: Callable[[RedisServer], RedisServer]
) -> None:
    """The same without `min-replicas-to-write`: it takes writes, and no replica has them."""
    former, primary, replica = make_server(), make_server(), make_server()
    sentinel = make_sentinel(former)
    with open_plain(replica) as admin:
        admin.replicaof(HOST, primary.port)
        wait_until(lambda: admin.info("replication")["master_link_status"] == "up", "the replica follows")
    with open_client(sentinel) as client, open_plain(sentinel) as watcher:
        ledger = RedisLedger(client, "ns", DEFAULT_SETTINGS, "replica", barrier_seconds=1.0)
        assert ledger.list_paused_queues() == {}
        watcher.execute_command("SENTINEL", "REMOVE", _SERVICE)
        watcher.execute_command("SENTINEL", "MONITOR", _SERVICE, HOST, primary.port, 1)
        with pytest.raises(WriteNotDurable):
            ledger.pause_queues(["q"])
        ledger.pause_queues(["q"])
        assert port_of(client) == primary.port


def moves(client: Any) -> bool:
    """Return whether a write succeeds."""
    try:
        return bool(client.set("a", 3))
    except redis.exceptions.ResponseError:
        return False


@contextmanager
def client_id_kept(client: Any) -> Iterator[None]:
    """Check that a connection from before is used after the body, in which another one cannot be made."""
    first = client.connection_pool.get_connection()
    first.send_command("CLIENT", "ID")
    client_id = first.read_response()
    yield
    client.connection_pool.release(first)
    assert client.client_id() == client_id


def test_a_full_primary_behind_sentinels_keeps_the_connections_that_it_has(
    make_server: Callable[[], RedisServer], make_sentinel: Callable[[RedisServer], RedisServer]
) -> None:
    """A refused one would otherwise cost a worker those that work, and others would take their places."""
    primary = make_server()
    sentinel = make_sentinel(primary)
    with open_plain(primary) as admin, open_client(sentinel) as client:
        wait_until(lambda: len(admin.client_list()) == 3, "the Sentinel has both of its connections")
        with client_id_kept(client):
            admin.config_set("maxclients", len(admin.client_list()))
            with pytest.raises(redis.exceptions.ConnectionError, match="max number of clients"):
                client.ping()


def test_a_node_of_a_cluster_that_refuses_a_log_in_keeps_the_connections_that_it_has(cluster: ValkeyCluster) -> None:
    """As while a password is changed."""
    with (
        open_plain(cluster.owner(_TAG)) as admin,
        connect(cluster.url, socket_timeout=5.0, max_connections=8, slot_key=_TAG) as client,
        client_id_kept(client),
    ):
        admin.config_set("requirepass", "changed")
        try:
            with pytest.raises(redis.exceptions.RedisError, match=r"HELLO must be called with|Authentication required"):
                client.ping()
        finally:
            admin.config_set("requirepass", "")


@pytest.mark.parametrize("option", ["", "&sentinel_password=wrong"])
def test_a_log_in_that_the_sentinels_refuse_is_not_taken_for_the_servers(
    sentinel: SentinelDeployment, option: str
) -> None:
    with open_plain(sentinel.sentinels[0]) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">secret")
        try:
            with (
                connect(f"{sentinel.url}{option}", socket_timeout=5.0, max_connections=1) as client,
                pytest.raises(redis.exceptions.AuthenticationError, match="the Sentinels refuse the log-in") as caught,
            ):
                client.ping()
        finally:
            admin.execute_command("ACL", "SETUSER", "default", "nopass")
    assert "sentinel_password" in str(wrap_error(caught.value))
