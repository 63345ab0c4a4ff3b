"""Which servers keep what `durability = aof` promises: the table of versions, and the servers that can be run here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ecs_queue.findings import Severity
from ecs_queue.ledger import RedisLedger
from ecs_queue.ledger.server_versions import VERSIONS, AofBarrier, aof_barrier
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.redis_connection import connect
from tests.protocol.settings import DEFAULT_SETTINGS
from tests.servers import require_redis_binary, valkey_binary

#: A server that syncs once a second confirms a write, and then the next one, no sooner than a second later.
_WRITES, _TOO_SOON = 12, 8.0


def _info(server: str, version: str) -> dict[str, Any]:
    valkey = {"server_name": "valkey", "valkey_version": version, "redis_version": "7.2.4"}
    return {"aof_enabled": 1, **(valkey if server == "valkey" else {"redis_version": version})}


@pytest.mark.parametrize(
    ("server", "version", "barrier"),
    [
        ("redis", "6.2.14", AofBarrier.ABSENT),
        ("redis", "7.0.15", AofBarrier.ABSENT),
        ("redis", "7.2.4", AofBarrier.DURABLE),
        ("redis", "7.4.0", AofBarrier.EARLY),
        ("redis", "7.4.2", AofBarrier.EARLY),
        ("redis", "7.4.3", AofBarrier.DURABLE),
        ("redis", "8.0", AofBarrier.DURABLE),
        ("valkey", "7.2.7", AofBarrier.DURABLE),
        ("valkey", "8.0.1", AofBarrier.EARLY),
        ("valkey", "9.0.0", AofBarrier.EARLY),
        ("valkey", "9.1.2", AofBarrier.EARLY),
        ("valkey", "9.1.3", AofBarrier.EARLY),
        ("redis", "unknown", None),
    ],
)
def test_the_table_of_versions(server: str, version: str, barrier: AofBarrier | None) -> None:
    assert aof_barrier(_info(server, version)) is barrier


def test_every_range_says_how_it_is_known() -> None:
    assert all(each.source.split()[0] in ("run", "read", "not") for each in VERSIONS)


def _seconds_to_confirm(client: Any) -> float:
    """Return how long this number of writes takes, each after the one before is confirmed."""
    began = time.monotonic()
    for number in range(_WRITES):
        client.set("key", number)
        assert client.execute_command("WAITAOF", 1, 0, 5000)[0] == 1
    return time.monotonic() - began


@pytest.mark.server
def test_the_valkey_here_confirms_before_the_file_is_on_disk_and_the_ledger_says_so(tmp_path: Path) -> None:
    """When this fails, the installed Valkey is mended: give it a row of its own in the table."""
    with (
        RedisServer(binary=valkey_binary(), data_dir=tmp_path, appendonly="everysec") as server,
        connect(server.url, socket_timeout=10.0, max_connections=1) as client,
    ):
        admin: Any = client
        ledger = RedisLedger(client, "test", DEFAULT_SETTINGS, "aof")
        assert aof_barrier(admin.info()) is AofBarrier.EARLY
        assert _seconds_to_confirm(client) < _TOO_SOON
        assert any("needs appendfsync always" in finding.text for finding in ledger.check_server())
        admin.config_set("appendfsync", "always")
        assert {finding.severity for finding in ledger.check_server()} == {Severity.OK}


@pytest.mark.server
def test_the_redis_here_is_as_the_table_says() -> None:
    with (
        RedisServer(binary=require_redis_binary()) as server,
        connect(server.url, socket_timeout=10.0, max_connections=1) as client,
    ):
        admin: Any = client
        expected = aof_barrier(admin.info())
        known = b"waitaof" in admin.command_list()
        assert known is (expected is not AofBarrier.ABSENT)
