"""The findings about a server, from facts and from real servers with users that lack a right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from ecs_queue.errors import MissingRight
from ecs_queue.findings import Finding, Reporter, Severity
from ecs_queue.ledger import RedisLedger
from ecs_queue.ledger.needed_rights import needed_rights
from ecs_queue.ledger.server_checks import ServerFacts, check_facts
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.redis_connection import connect
from ecs_queue.server_users import ServerUser
from tests.protocol.settings import DEFAULT_SETTINGS
from tests.servers import require_redis_binary, valkey_binary

_VALKEY = {
    "server_name": "valkey",
    "valkey_version": "9.1.2",
    "redis_version": "7.2.4",
    "maxmemory_policy": "noeviction",
}
_REDIS_7_0 = {"redis_version": "7.0.15", "maxmemory_policy": "noeviction"}
_NO_WAITAOF = {"barrier_confirms": False, "barrier_error": "unknown command 'WAITAOF'"}
_NO_FILE = {"barrier_confirms": False, "barrier_error": "WAITAOF cannot be used when appendonly is disabled."}


def _check(durability: str, **facts: Any) -> dict[str, Finding]:
    return {found.check: found for found in check_facts(Reporter("ledger"), ServerFacts(**facts), durability)}


@pytest.mark.parametrize(
    ("durability", "facts", "words"),
    [
        ("aof", {"info": _REDIS_7_0, **_NO_WAITAOF}, "version 7.0.15 does not have"),
        ("aof", _NO_WAITAOF, "this server does not have"),
        ("aof", {"info": _VALKEY, **_NO_FILE}, "needs an append-only file"),
        ("replica", {"info": _VALKEY, "barrier_confirms": False}, "none is connected"),
        ("replica", {"barrier_confirms": False}, "none is connected"),
    ],
)
def test_a_durability_that_the_server_cannot_give_prevents_launches(
    durability: str, facts: dict[str, Any], words: str
) -> None:
    """Also where INFO is not allowed: the barrier itself was tried."""
    finding = _check(durability, **facts)["server.persistence"]
    assert finding.prevents_launches
    assert words in finding.text
    assert "nothing would be launched" in finding.text


def test_a_server_that_takes_no_writes_prevents_launches() -> None:
    assert _check("server", info={**_VALKEY, "role": "slave"})["server.role"].prevents_launches


def test_a_cluster_is_a_server_like_any_other() -> None:
    assert not any(
        finding.prevents_launches for finding in _check("server", info={**_VALKEY, "cluster_enabled": 1}).values()
    )


def test_missing_rights_prevent_launches_and_are_named_up_to_a_number() -> None:
    denied = [("ZADD", f"{{ns}}:l:{number}") for number in range(9)]
    finding = _check("server", denied=denied)["server.rights"]
    assert finding.prevents_launches
    assert finding.text.endswith("ZADD on {ns}:l:4, ZADD on {ns}:l:5 and 3 more")


@pytest.mark.parametrize("durability", ["server", "aof", "replica"])
def test_what_this_user_may_not_look_at_is_a_note(durability: str) -> None:
    found = _check(durability, barrier_confirms=None if durability == "server" else True)
    assert {finding.severity for finding in found.values()} == {Severity.INFO}


def test_aof_with_everysec_is_an_error_where_the_server_confirms_early() -> None:
    facts = {"info": {**_VALKEY, "aof_enabled": 1}, "barrier_confirms": True}
    assert _check("aof", **facts, appendfsync="everysec")["server.persistence"].severity is Severity.ERROR
    assert _check("aof", **facts, appendfsync="always")["server.persistence"].severity is Severity.OK
    assert _check("aof", **facts, appendfsync=None)["server.persistence"].severity is Severity.INFO
    mended = {**facts, "info": {"redis_version": "7.4.3", "aof_enabled": 1}}
    assert _check("aof", **mended, appendfsync="everysec")["server.persistence"].severity is Severity.OK


def test_with_a_replica_a_file_is_enough_and_none_is_a_warning() -> None:
    facts = {"info": _VALKEY, "barrier_confirms": True}
    finding = _check("replica", **facts)["server.persistence"]
    assert (finding.severity, "empties the replica" in finding.text) == (Severity.WARNING, True)
    on_disk = {**facts, "info": {**_VALKEY, "aof_enabled": 1}, "appendfsync": "everysec"}
    assert _check("replica", **on_disk)["server.persistence"].severity is Severity.OK
    assert _check("server", **on_disk)["server.persistence"].severity is Severity.WARNING


def test_a_reader_needs_no_right_to_write_and_no_barrier() -> None:
    assert {right[0] for right in needed_rights(ServerUser.READER, "{ns}:l:", "aof")} == {
        *("HGETALL", "HGET", "HMGET", "ZCARD", "ZCOUNT", "ZLEXCOUNT", "ZRANGE", "ZREVRANGE"),
    }
    assert ("WAITAOF",) in needed_rights(ServerUser.SUBMITTER, "{ns}:l:", "aof")


def test_a_worker_needs_every_command_of_the_script() -> None:
    client, worker = (set(needed_rights(user, "{ns}:l:")) for user in (ServerUser.SUBMITTER, ServerUser.WORKER))
    assert client < worker
    assert ("ZADD", "{ns}:l:due") in worker
    assert ("HSET", "{ns}:l:workers") in worker


@pytest.fixture(params=[require_redis_binary, valkey_binary], ids=["redis", "valkey"])
def make_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., RedisLedger]]:
    """A ledger on a server of each program, whose user has the given rules."""
    opened: list[Any] = []
    with RedisServer(binary=request.param(), data_dir=tmp_path, appendonly="always") as server:
        with redis.Redis.from_url(server.url) as admin:

            def make(*rules: str, durability: str = "server") -> RedisLedger:
                admin.execute_command("ACL", "SETUSER", "lean", "reset", "on", ">pw", *rules)
                url = server.url.replace("redis://", "redis://lean:pw@")
                opened.append(connect(url, socket_timeout=5.0, max_connections=2))
                return RedisLedger(opened[-1], "test", DEFAULT_SETTINGS, durability)

            yield make
            log: Any = admin.execute_command("ACL", "LOG")
            assert log == []  # asking for rights is no attempt to use them
        for client in opened:
            client.close()


@pytest.mark.parametrize(
    ("durability", "min_replicas", "warns"),
    [("replica", 0, True), ("replica", 1, False), ("replica", None, False), ("server", 0, False)],
)
def test_a_primary_that_writes_without_a_replica_is_a_warning_where_replicas_are_waited_for(
    durability: str, min_replicas: int | None, warns: bool
) -> None:
    findings = _check(durability, info=_VALKEY, min_replicas=min_replicas)
    assert ("server.min_replicas" in findings) == warns
    assert not any(finding.prevents_launches for finding in findings.values())


@pytest.mark.server
def test_requests_under_the_former_keys_are_counted_for_a_worker_that_may_see_them(
    make_ledger: Callable[..., RedisLedger],
) -> None:
    def find(*rules: str, user: ServerUser = ServerUser.WORKER) -> list[Finding]:
        return [found for found in make_ledger(*rules).check_server(user) if found.check == "server.former_keys"]

    assert find("~*", "+@all") == []
    make_ledger("~*", "+@all")._redis.zadd("test:l:live", {"a": 1, "b": 2})
    (finding,) = find("~{test}:*", "+@all", "(%R~test:l:live +zcard)")
    assert finding.text.startswith("2 requests that have not ended are under the former keys")
    assert (finding.severity, finding.prevents_launches) == (Severity.WARNING, False)
    assert find("~{test}:*", "+@all") == find("~*", "+@all", user=ServerUser.READER) == []


@pytest.mark.server
@pytest.mark.parametrize("denied", ["-info", "-config"])
def test_a_user_that_may_not_read_the_settings_gets_a_note_and_may_start(
    make_ledger: Callable[..., RedisLedger], denied: str
) -> None:
    findings = make_ledger("~*", "+@all", denied).check_server()
    assert {finding.severity for finding in findings} <= {Severity.OK, Severity.INFO}
    assert Severity.INFO in {finding.severity for finding in findings}


@pytest.mark.server
@pytest.mark.parametrize(
    ("rules", "named"),
    [
        (("~*", "+@all", "-zadd"), "ZADD on {test}:l:due"),
        (("~other:*", "+@all"), "HGETALL on {test}:l:r:"),
        (("%R~*", "+@all"), "HSET on {test}:l:arns"),
    ],
)
def test_a_missing_right_is_found_before_it_is_needed(
    make_ledger: Callable[..., RedisLedger], rules: tuple[str, ...], named: str
) -> None:
    (finding,) = (found for found in make_ledger(*rules).check_server() if found.prevents_launches)
    assert finding.check == "server.rights"
    assert finding.text.startswith("the ledger's server denies its user what a worker needs: ")
    denied = finding.text.partition(" and ")[0]
    assert named.split()[0] in denied


@pytest.mark.server
def test_a_user_that_may_run_no_script_is_named_with_the_command(tmp_path: Path) -> None:
    with RedisServer(binary=valkey_binary()) as server:
        with redis.Redis.from_url(server.url) as admin:
            admin.execute_command("ACL", "SETUSER", "lean", "on", ">pw", "~*", "+@all", "-evalsha")
        url = server.url.replace("redis://", "redis://lean:pw@")
        with connect(url, socket_timeout=5.0, max_connections=1) as client:
            ledger = RedisLedger(client, "test", DEFAULT_SETTINGS)
            for call in (ledger.check_server, ledger.now):
                with pytest.raises(MissingRight, match="denies user lean the command EVALSHA"):
                    call()


def test_the_memory_of_a_small_server_is_shown_with_digits() -> None:
    found = _check("server", info={**_VALKEY, "used_memory": 900_000, "maxmemory": 500_000})["server.memory"]
    assert found.text == "0.86 of 0.48 MiB in use"
