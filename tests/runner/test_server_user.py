"""The server user of runners: enough for a runner's life, and nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ecs_queue.local.redis_server import RedisServer
from tests.runner.conftest import NAMESPACE, PREFIX, SECRET_URL_NAME, MakeRunner
from tests.security.installation import find_allowed_commands, run_server_with_users
from tests.servers import require_redis_binary, valkey_binary
from tests.wait import TIMEOUT_SECONDS, wait_until

_QUEUES = PREFIX.removesuffix("l:") + "q:"


@pytest.fixture(params=[require_redis_binary, valkey_binary], ids=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server with the users of the namespace, of each program."""
    find: Callable[[], str] = request.param
    with run_server_with_users(find(), NAMESPACE) as server:
        yield server


def _url(server: RedisServer) -> str:
    return server.url.replace("redis://", f"redis://{NAMESPACE}-runner:{NAMESPACE}-runner-pw@")


def test_a_runner_lives_with_the_rights_of_its_user(server: RedisServer, make_runner: MakeRunner) -> None:
    runner = make_runner(server, warm_seconds=0.5)
    runner.assign("sh", "-c", "echo up; exec sleep 600")
    runner.start(**{SECRET_URL_NAME: _url(server)})
    wait_until(lambda: "up\n" in runner.output())
    runner.cancel()
    assert runner.end() == (143, True)
    assert runner.process is not None
    assert runner.process.wait(TIMEOUT_SECONDS) == 0
    assert runner.fields()["closed"] == "left"
    assert runner.client.acl_log() == []


def test_a_runner_may_do_nothing_else(server: RedisServer) -> None:
    run, record, payload = f"{PREFIX}run:r", f"{PREFIX}r:job", f"{PREFIX}payload:job"
    commands = [
        *(f"HGETALL {key}" for key in (run, record, payload, f"{PREFIX}counts", "{other}:l:run:r")),
        *(f"HSET {key} a b" for key in (record, payload, "{other}:l:run:r", f"{PREFIX}paused")),
        *(f"DEL {key}" for key in (run, record, f"{PREFIX}changed_runs", f"{PREFIX}wake:r")),
        *(f"LPUSH {key} x" for key in (f"{PREFIX}wake:r", f"{_QUEUES}requests.default", f"{_QUEUES}results.a")),
        *(f"ZRANGE {PREFIX}{key} 0 -1" for key in ("changed_runs", "live", "due")),
        *("KEYS *", "SCAN 0", "FLUSHALL", "CONFIG GET *", "ACL LIST", "MONITOR", "CLIENT KILL ID 1", "EVAL return 0"),
        f"XADD {PREFIX.removesuffix('l:')}j:s * a b",
    ]
    assert find_allowed_commands(_url(server), commands) == []
