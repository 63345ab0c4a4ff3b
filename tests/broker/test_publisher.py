"""Publishing without kombu's `publish`: the server has the same elements as with it."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import kombu
import pytest
import redis

from ecs_queue.broker import Broker, RedisBroker, RequestMessage
from ecs_queue.errors import BrokerUnavailable
from ecs_queue.local.redis_server import RedisServer
from tests.servers import require_redis_binary

SECRET = b"hunter2-4711"


def _elements(client: Any) -> dict[bytes, list[dict[str, Any]]]:
    """Return all messages on the server by key, without their tags, which differ."""
    found: dict[bytes, list[dict[str, Any]]] = {}
    for key in client.scan_iter():
        if client.type(key) == b"list":
            found[key] = [json.loads(element) for element in client.lrange(key, 0, -1)]
            for message in found[key]:
                assert message["properties"].pop("delivery_tag")
    return found


@pytest.mark.parametrize("priority", [0, 4, 9])
def test_the_server_gets_what_kombu_writes(redis_url: str, broker: Broker, client: Any, priority: int) -> None:
    body = '{"command": ["ü", "\\" \\\\"]}'.encode()
    options = {"global_keyprefix": "{ns}:q:", "priority_steps": list(range(10))}
    with kombu.Connection(redis_url, transport_options=options) as connection:
        kombu.Producer(connection.default_channel).publish(
            body,
            exchange="",
            routing_key="requests.q",
            priority=9 - priority,
            content_type="application/json",
            content_encoding="utf-8",
        )
    by_kombu = _elements(client)
    client.flushdb()

    broker.publish_requests([RequestMessage("q", body, priority)])

    assert len(by_kombu) == 1
    assert _elements(client) == by_kombu


def test_each_message_has_its_own_tag(broker: Broker, client: Any) -> None:
    broker.publish_requests([RequestMessage("q", b"1", 9)] * 40)
    broker.publish_requests([RequestMessage("q", b"1", 9)] * 40)

    elements = client.lrange("{ns}:q:requests.q", 0, -1)
    assert len({json.loads(element)["properties"]["delivery_tag"] for element in elements}) == 80


def test_many_results_are_received_in_a_few_round_trips(broker: Broker, client: Any) -> None:
    sent = [b"%d" % number for number in range(1200)]
    broker.publish_results([("me", body) for body in sent])
    consumer = broker.consume_results("me")
    client.config_resetstat()

    found: list[bytes] = []
    while len(found) < len(sent):
        drained = consumer.drain(5.0)
        assert drained
        found += drained

    consumer.close()
    assert found == sent
    calls = client.info("commandstats")
    assert sum(calls.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("brpop", "rpop")) <= 4


def test_a_full_server_is_reported_without_the_payload() -> None:
    with RedisServer(binary=require_redis_binary()) as server, redis.Redis(port=server.port) as plain:
        broker = RedisBroker(server.url, "ns", visibility_timeout=60.0, socket_timeout=5.0)
        plain.config_set("maxmemory", 1)

        with pytest.raises(BrokerUnavailable, match="the server is full") as raised:
            broker.publish_requests([RequestMessage("q", SECRET)])

        broker.close()
        error: BaseException | None = raised.value
        while error is not None:
            assert "LPUSH" not in str(error)  # redis-py likes to quote the command
            assert b64encode(SECRET).decode() not in str(error)
            error = error.__cause__ or error.__context__
