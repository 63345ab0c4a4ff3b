"""The server user of containers that run functions: it reads calls, writes values, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ecs_queue.calls.store import RedisCallStore
from ecs_queue.errors import MissingRight
from ecs_queue.local.redis_server import RedisServer
from tests.security.installation import find_allowed_commands, run_server_with_users
from tests.servers import require_redis_binary, valkey_binary

NAMESPACE = "calls"


@pytest.fixture(params=[require_redis_binary, valkey_binary], ids=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server with the users of the namespace."""
    find: Callable[[], str] = request.param
    with run_server_with_users(find(), NAMESPACE) as server:
        yield server


def _url(server: RedisServer, user: str) -> str:
    return server.url.replace("redis://", f"redis://{NAMESPACE}-{user}:{NAMESPACE}-{user}-pw@")


def test_a_call_goes_to_the_container_and_its_value_back_and_nothing_else_is_allowed(server: RedisServer) -> None:
    caller = RedisCallStore(_url(server, "submitter"), NAMESPACE)
    container = RedisCallStore(_url(server, "call"), NAMESPACE)
    caller.put("a", "in", b"call", 60.0)
    assert container.get("a", "in", 9) == b"call"
    container.put("a", "out", b"value", 60.0)
    assert caller.get("a", "out", 9) == b"value"
    forbidden_calls: list[Callable[[], object]] = [
        lambda: container.put("a", "in", b"forged", 60.0),
        lambda: container.get("a", "out", 9),
        lambda: container.delete("a"),
        lambda: caller.put("a", "out", b"forged", 60.0),
    ]
    for forbidden in forbidden_calls:
        with pytest.raises(MissingRight, match="server denies"):
            forbidden()
    caller.delete("a")
    caller.close()
    container.close()


def test_a_container_may_do_nothing_else(server: RedisServer) -> None:
    commands = [
        *(f"{command} {{calls}}:l:r:job" for command in ("HGETALL", "GET", "DEL")),
        *("HGETALL {calls}:l:payload:job", "HSET {calls}:l:paused default 1", "LPUSH {calls}:q:requests.default x"),
        *("GET {other}:c:in:a", "SET {other}:c:out:a x", "KEYS *", "SCAN 0", "FLUSHALL", "CONFIG GET *", "ACL LIST"),
    ]
    assert find_allowed_commands(_url(server, "call"), commands) == []
