"""A broker that accepts messages and refuses the scripts that take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from redis.crc import key_slot

from ecs_queue.local.redis_server import RedisServer
from ecs_queue.server_keys import queue_prefix
from tests.faults.harness import FaultHarness
from tests.replicated_servers import ValkeyCluster
from tests.servers import require_redis_binary
from tests.wait import wait_until

pytestmark = pytest.mark.slow

_KEY = queue_prefix("ecs-queue")


@pytest.fixture
def server_without_scripts() -> Iterator[RedisServer]:
    with RedisServer(binary=require_redis_binary(), settings=['rename-command EVALSHA ""']) as server:
        yield server


def _health(harness: FaultHarness) -> str:
    return "".join(worker.health for worker in harness.queue.ledger.list_workers())


def test_a_worker_whose_messages_no_script_can_take_is_not_ok(
    server_without_scripts: RedisServer, redis_url: str, make_harness: Callable[..., FaultHarness]
) -> None:
    harness = make_harness(server_without_scripts.url, ledger_url=redis_url)
    harness.start_worker()
    wait_until(lambda: "the broker failed" in _health(harness), "the worker's health says why")
    assert "EVALSHA" in _health(harness)


def test_a_slot_that_no_node_serves_for_a_while_makes_the_worker_not_ok(
    cluster: ValkeyCluster, redis_url: str, make_harness: Callable[..., FaultHarness]
) -> None:
    harness = make_harness(cluster.url, ledger_url=redis_url)
    owner, slot = cluster.client(cluster.owner(_KEY)), key_slot(_KEY.encode())
    harness.start_worker()
    wait_until(lambda: _health(harness) == "ok", "the worker works")
    owner.execute_command("CLUSTER", "DELSLOTS", slot)
    try:
        wait_until(lambda: "the broker failed" in _health(harness), "the worker's health says why")
    finally:
        owner.execute_command("CLUSTER", "ADDSLOTS", slot)
    wait_until(lambda: _health(harness) == "ok", "the worker works again")
    cluster.wait_until_stable()
