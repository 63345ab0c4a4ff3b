"""The users of conf/redis-users.acl: in normal use the server denies none of them anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from ecs_queue.broker import open_broker
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.ledger import open_ledger
from ecs_queue.local.redis_server import RedisServer
from tests.conformance.ledger.harness import claim_request
from tests.servers import require_redis_binary, valkey_binary
from tests.wait import wait_until

pytestmark = [pytest.mark.server]

_USERS = Path(__file__).parents[2] / "conf" / "redis-users.acl"
_PASSWORD = "a-password"
_PROFILE = {"AWS_ECS_EXECUTOR__CLUSTER": "jobs", "AWS_ECS_EXECUTOR__REGION_NAME": "us-east-1"}
_PROFILE |= {"AWS_ECS_EXECUTOR__TASK_DEFINITION": "family:1", "AWS_ECS_EXECUTOR__CONTAINER_NAME": "main"}
_PROFILE |= {"AWS_ECS_EXECUTOR__SUBNETS": "subnet-1"}


@pytest.fixture(params=[require_redis_binary, valkey_binary], ids=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server with these users, of each program."""
    with RedisServer(binary=request.param()) as server, redis.Redis.from_url(server.url) as client:
        for line in _USERS.read_text().splitlines()[1:]:
            _, name, *rules = line.split()
            rules = [f">{_PASSWORD}" if rule.startswith(">") else rule for rule in rules]
            client.execute_command("ACL", "SETUSER", name, *rules)
        yield server


def _environ(server: RedisServer, user: str) -> dict[str, str]:
    url = server.url.replace("redis://", f"redis://ecs-queue-{user}:{_PASSWORD}@")
    return {"AIRFLOW__ECS_QUEUE__BROKER_URL": url, **{f"AIRFLOW__{name}": value for name, value in _PROFILE.items()}}


def _submit(environ: dict[str, str]) -> None:
    with EcsQueue.from_config(environ=environ) as queue:
        queue.submit(["true"], id="a")
        queue.submit(["true"], id="b")
        queue.stop("b")
        assert queue.ledger.get(["a", "b"])


def _work(environ: dict[str, str]) -> None:
    config = load_config(environ=environ)
    ledger, broker = open_ledger(config), open_broker(config)
    try:
        assert ledger.check_server() == []
        ledger.begin_delivery("nonce", "delivery")
        ledger.end_delivery("nonce")
        assert ledger.claim("a", claim_request()).record is not None
        ledger.launched("a", "nonce", 1, "arn:1", 1.0)
        ledger.lease_due(10)
        ledger.list_workers()
        taken: list[Any] = []
        consumer = broker.consume_requests(["default"], 1, taken.append, print)
        wait_until(lambda: consumer.drain(0.1) or taken, "the request is taken")
        taken[0].ack()
        consumer.close()
    finally:
        broker.close()
        ledger.close()


def _read(environ: dict[str, str]) -> None:
    ledger = open_ledger(load_config(environ=environ))
    try:
        ledger.count_by_state()
        ledger.list_records("", 10)
        ledger.list_workers()
    finally:
        ledger.close()


@pytest.mark.parametrize(("user", "use"), [("submitter", _submit), ("worker", _work), ("reader", _read)])
def test_the_server_denies_a_user_nothing_in_normal_use(
    server: RedisServer, user: str, use: Callable[[dict[str, str]], None]
) -> None:
    """Among others CLIENT SETINFO, which redis-py sends twice on each connection."""
    if user == "worker":
        _submit(_environ(server, "submitter"))
    use(_environ(server, user))
    with redis.Redis.from_url(server.url) as client:
        admin: Any = client
        assert [(entry["username"], entry["object"]) for entry in admin.acl_log()] == []


def test_the_users_may_do_nothing_to_other_connections(server: RedisServer) -> None:
    """They may set up their own connection, by the category, since Redis 7.0 does not know the name SETINFO."""
    for user in ("worker", "submitter", "reader"):
        with redis.Redis.from_url(_environ(server, user)["AIRFLOW__ECS_QUEUE__BROKER_URL"]) as client:
            for command in ("CLIENT LIST", "CLIENT KILL ID 1", "CLIENT PAUSE 1", "CONFIG GET *", "ACL LIST", "KEYS *"):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command.split())
