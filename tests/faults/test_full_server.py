"""A server whose memory is used up (maxmemory, noeviction): `OOM command not allowed`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from ecs_queue.broker import Delivery, KombuBroker, Outgoing
from ecs_queue.broker.consumer import KombuConsumer
from ecs_queue.core import envelope
from ecs_queue.core.states import State
from ecs_queue.errors import BrokerUnavailable, LedgerUnavailable
from ecs_queue.local.redis_server import RedisServer
from tests.faults.site import PATIENCE, Site, eventually
from tests.faults.wire import element, push
from tests.launcher.fake_ecs import RunCall


def _fill(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1024 * 1024 // 2)  # below what an empty server uses


def _free(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 0)


def test_submit_says_what_to_do_and_works_again_when_there_is_memory(
    server: RedisServer, make_site: Callable[..., Site]
) -> None:
    site = make_site(server.url)
    _fill(server)

    with pytest.raises(LedgerUnavailable, match=r"full.*maxmemory.*[Ss]ubmit again"):
        site.submit("a")
    assert site.states("a") == [None]
    _free(server)
    site.submit("a")

    assert site.states("a") == [State.QUEUED]


def test_what_is_in_hand_goes_on_to_its_end_and_the_rest_waits(
    server: RedisServer, make_site: Callable[..., Site]
) -> None:
    site = make_site(server.url)
    running = [f"r{index}" for index in range(20)]
    site.submit(*running)
    site.worker()
    site.all_in(State.LAUNCHED, *running)

    _fill(server)
    site.end_all()
    site.all_in(State.SUCCESS, *running)

    _free(server)
    site.submit("later")
    site.all_in(State.LAUNCHED, "later")
    assert len(site.launches()) == len(set(site.launches())) == len(running) + 1
    results = {result.id for result in site.queue.as_completed([site.queue.handle(name) for name in running], 30.0)}
    assert results == set(running)


def test_messages_without_records_wait_until_there_is_memory(
    server: RedisServer, make_site: Callable[..., Site]
) -> None:
    """Another program's messages are the only copies."""
    site = make_site(server.url, concurrency=1)
    called, answer = threading.Event(), threading.Event()

    def hang(call: RunCall) -> None:
        called.set()
        assert answer.wait(PATIENCE)

    site.ecs.on_run = hang
    names = [f"f{index}" for index in range(8)]
    bodies = [
        envelope.encode(envelope.new_request(id=name, command=["true"], now=time.time(), accept_seconds=600.0))
        for name in names
    ]
    with redis.Redis.from_url(server.url) as client:
        site.worker()
        push(client, *[element(body) for body in bodies])
        assert called.wait(PATIENCE)
        _fill(server)
        answer.set()
        eventually(lambda: len(site.failures("full")) > 2, "the consumer has met the full server, again and again")
        site.all_in(State.LAUNCHED, names[0])  # what was in hand
        # One was launched, one may have waited for it; at most one was given out and could not be noted. While that one
        # cannot be given back no other is taken, however often the consumer tries.
        assert client.llen("ecs-queue:q:requests.default") >= len(names) - 3
    _free(server)

    site.all_in(State.LAUNCHED, *names)
    assert len(site.launches()) == len(set(site.launches())) == len(names)


def test_a_message_that_the_server_gives_out_and_cannot_note_is_published_again(server: RedisServer) -> None:
    """Its memory is used up between the two: nobody else has the message any more."""
    broker = KombuBroker(server.url, "ecs-queue", visibility_timeout=60.0, socket_timeout=2.0)
    broker.publish_requests([Outgoing("default", b"1", 3), Outgoing("default", b"2", 3)])
    taken: list[Delivery] = []

    def consume() -> KombuConsumer:
        return broker.consume(["default"], 10, taken.append, lambda queue, raw, reason: pytest.fail(reason))

    consumer = consume()
    parse = consumer._tap._parse

    def fill_after(connection: Any, command: str, **options: Any) -> Any:
        found = parse(connection, command, **options)
        if command == "BRPOP" and found:
            _fill(server)
        return found

    consumer._tap._parse = fill_after
    with pytest.raises(BrokerUnavailable, match=r"full.*maxmemory"):
        consumer.drain(PATIENCE)
    consumer.close()
    assert not taken
    with pytest.raises(BrokerUnavailable, match="full"):
        consume()  # while it cannot be given back no other is taken
    _free(server)

    consumer = consume()
    eventually(lambda: (consumer.drain(1.0), len(taken) == 2)[1], "both are delivered")
    assert sorted(delivery.body for delivery in taken) == [b"1", b"2"]
    consumer.close()
    broker.close()
