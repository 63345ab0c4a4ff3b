"""What people and other programs do to a server while requests run on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import redis
import redis.exceptions

from ecs_queue.errors import EcsQueueError, LedgerUnavailable
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.states import State
from tests.faults.harness import FaultHarness
from tests.servers import require_redis_binary
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

MakeHarness = Callable[..., FaultHarness]


def test_a_flushed_server_loses_no_request_that_a_client_waits_for(
    own_redis: RedisServer, make_harness: MakeHarness
) -> None:
    """The client puts it again with the same nonce, so that ECS answers with the task that runs already."""
    harness = make_harness(own_redis.url)
    harness.start_worker()
    handle = harness.queue.submit(["true"], id="a")
    waiting = threading.Thread(target=handle.result, args=(60,))
    waiting.start()
    harness.wait_for_state(State.LAUNCHED, "a")
    task = harness.ecs.live_tasks()[0]["taskArn"]
    own_redis.flush()
    harness.wait_for_state(State.LAUNCHED, "a")
    harness.end_all_tasks()
    waiting.join()
    assert handle.result(60).state == State.SUCCESS
    assert handle.result(60).task_arn == task
    assert len(harness.ecs.tasks) == 1


def test_scripts_that_are_flushed_and_connections_that_are_killed_lose_and_double_nothing(
    own_redis: RedisServer, make_harness: MakeHarness
) -> None:
    harness = make_harness(own_redis.url)
    ids = [f"r{number}" for number in range(20)]
    harness.submit(*ids)
    ended = threading.Event()

    def disturb() -> None:
        with redis.Redis.from_url(own_redis.url) as client:
            admin: Any = client
            while not ended.wait(0.1):
                admin.script_flush()
                admin.client_kill_filter(_type="normal", skipme=True)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        harness.start_worker()
        wait_until(lambda: len(harness.ecs.tasks) == len(ids), "every request is launched", seconds=60.0)
    finally:
        ended.set()
        disturber.join()
    harness.wait_for_state(State.LAUNCHED, *ids)
    harness.end_all_tasks()
    harness.wait_for_state(State.SUCCESS, *ids)
    assert len(set(harness.started_by_values())) == len(harness.ecs.tasks) == len(ids)


def test_a_server_that_cannot_save_is_an_outage_until_it_can(make_harness: MakeHarness) -> None:
    """`MISCONF`: it refuses writes, and PING too, and answers reads."""
    with RedisServer(binary=require_redis_binary(), settings=["enable-protected-configs yes"]) as server:
        harness = make_harness(server.url)
        harness.start_worker()
        harness.submit("before")
        harness.wait_for_state(State.LAUNCHED, "before")
        gone = server.data_dir / "gone"
        gone.mkdir()
        with redis.Redis.from_url(server.url) as client:
            admin: Any = client
            admin.config_set("dir", str(gone))
            admin.config_set("save", "3600 1")
            gone.rmdir()
            with suppress(redis.exceptions.ResponseError):  # it cannot even begin
                admin.bgsave()
            wait_until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err", "the save has failed")
            with pytest.raises(LedgerUnavailable, match="MISCONF"):
                harness.submit("meanwhile")
            harness.end_all_tasks()
            admin.config_set("save", "")
        harness.submit("after")
        harness.wait_for_state(State.SUCCESS, "before")
        harness.wait_for_state(State.LAUNCHED, "after")
        assert harness.states("meanwhile") == [None]


def test_a_long_script_of_another_program_is_an_outage_until_it_ends(
    own_redis: RedisServer, make_harness: MakeHarness
) -> None:
    """`BUSY`: the server answers nothing else meanwhile."""
    harness = make_harness(own_redis.url)
    harness.start_worker()
    harness.submit("before")
    harness.wait_for_state(State.LAUNCHED, "before")

    def run_script() -> None:
        with redis.Redis.from_url(own_redis.url, socket_timeout=120) as other, suppress(redis.exceptions.ResponseError):
            other.eval("while true do end", 0)

    with redis.Redis.from_url(own_redis.url) as client:
        admin: Any = client
        admin.config_set("busy-reply-threshold", 100)
        script = threading.Thread(target=run_script)
        script.start()
        try:
            wait_until(lambda: harness.service_failures("BUSY"), "a service has met it")
            with pytest.raises(EcsQueueError, match="BUSY"):
                harness.submit("meanwhile")
        finally:
            admin.script_kill()
            script.join()
    harness.end_all_tasks()
    harness.submit("after")
    harness.wait_for_state(State.SUCCESS, "before")
    harness.wait_for_state(State.LAUNCHED, "after")
