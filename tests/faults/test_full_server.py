"""A server whose memory is used up (maxmemory, noeviction): `OOM command not allowed`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from ecs_queue.broker import Delivery, RedisBroker, RequestMessage
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.messages import envelope
from ecs_queue.messages.request import new_request
from ecs_queue.protocol.states import State
from tests.fake_ecs import RunTaskCall
from tests.faults.harness import FaultHarness
from tests.faults.raw_messages import encode_kombu_message, push_messages
from tests.wait import TIMEOUT_SECONDS, wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]


def _fill(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1024 * 1024 // 2)  # below what an empty server uses


def _free(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 0)


def _refusals(client: Any) -> int:
    """How many commands and scripts the server has refused because its memory was full."""
    return int(client.info("errorstats").get("errorstat_OOM", {"count": 0})["count"])


def test_submit_says_what_to_do_and_works_again_when_there_is_memory(
    own_redis: RedisServer, make_harness: Callable[..., FaultHarness]
) -> None:
    harness = make_harness(own_redis.url)
    _fill(own_redis)

    with pytest.raises(LedgerUnavailable, match=r"full.*maxmemory.*[Ss]ubmit again"):
        harness.submit("a")
    assert harness.states("a") == [None]
    _free(own_redis)
    harness.submit("a")

    assert harness.states("a") == [State.QUEUED]


def test_what_is_in_hand_goes_on_to_its_end_and_the_rest_waits(
    own_redis: RedisServer, make_harness: Callable[..., FaultHarness]
) -> None:
    harness = make_harness(own_redis.url)
    running = [f"r{index}" for index in range(20)]
    harness.submit(*running)
    harness.start_worker()
    harness.wait_for_state(State.LAUNCHED, *running)

    _fill(own_redis)
    harness.end_all_tasks()
    harness.wait_for_state(State.SUCCESS, *running)

    _free(own_redis)
    harness.submit("later")
    harness.wait_for_state(State.LAUNCHED, "later")
    assert len(harness.started_by_values()) == len(set(harness.started_by_values())) == len(running) + 1
    results = {
        result.id for result in harness.queue.as_completed([harness.queue.handle(name) for name in running], 30.0)
    }
    assert results == set(running)


def test_messages_without_records_wait_until_there_is_memory(
    own_redis: RedisServer, make_harness: Callable[..., FaultHarness]
) -> None:
    """Another program's messages are the only copies."""
    harness = make_harness(own_redis.url, concurrency=1)
    called, answer = threading.Event(), threading.Event()

    def hang(call: RunTaskCall) -> None:
        called.set()
        assert answer.wait(TIMEOUT_SECONDS)

    harness.ecs.on_run_task = hang
    names = [f"f{index}" for index in range(8)]
    bodies = [
        envelope.encode(new_request(id=name, command=["true"], now=time.time(), accept_seconds=600.0)) for name in names
    ]
    with redis.Redis.from_url(own_redis.url) as client:
        harness.start_worker()
        push_messages(client, *[encode_kombu_message(body) for body in bodies])
        assert called.wait(TIMEOUT_SECONDS)
        _fill(own_redis)
        answer.set()
        wait_until(
            lambda: _refusals(client) > 2 and bool(harness.service_failures("full")),
            "the consumer has met the full server, again and again",
        )
        harness.wait_for_state(State.LAUNCHED, names[0])  # what was in hand
        # One was launched, one may have waited for it, and one may have been taken before the server was full.
        assert client.llen("{ecs-queue}:q:requests.default") >= len(names) - 3
    _free(own_redis)

    harness.wait_for_state(State.LAUNCHED, *names)
    assert len(harness.started_by_values()) == len(set(harness.started_by_values())) == len(names)


def test_a_consumer_takes_no_message_off_a_full_server(own_redis: RedisServer) -> None:
    """It could not note that it has the message."""
    broker = RedisBroker(own_redis.url, "ecs-queue", visibility_timeout=60.0, socket_timeout=2.0)
    broker.publish_requests([RequestMessage("default", b"1", 3), RequestMessage("default", b"2", 3)])
    taken: list[Delivery] = []
    consumer = broker.consume_requests(["default"], 10, taken.append, lambda queue, raw, reason: pytest.fail(reason))
    _fill(own_redis)

    with pytest.raises(BrokerUnavailable, match=r"full.*maxmemory"):
        consumer.drain(TIMEOUT_SECONDS, {"default": 10})
    assert not taken
    assert broker.backlog("default") == 2
    _free(own_redis)

    wait_until(lambda: (consumer.drain(1.0), len(taken) == 2)[1], "both are delivered")
    assert [delivery.body for delivery in taken] == [b"1", b"2"]
    consumer.close()
    broker.close()
