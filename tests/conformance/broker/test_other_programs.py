"""Messages from programs that publish with kombu alone, among them what no program should publish."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import kombu
import kombu.compression
import pytest

from ecs_queue.broker import Broker, topology
from tests.conformance.broker.conftest import RESULT_TRANSPORTS
from tests.conformance.broker.harness import BrokerHarness

MakeBroker = Callable[..., Broker]
Publish = Callable[..., None]

#: A compression that the tests register with kombu.
_CODING = "application/x-ecs-queue-test"


@pytest.fixture
def publish(stock_connection: Any, stock_name: Callable[[str], str]) -> Publish:
    """Return a function that publishes with kombu."""

    def publish_with_kombu(name: str, body: bytes, **options: Any) -> None:
        routing = {"exchange": "", "routing_key": stock_name(name)}
        content = {"content_type": "application/json", "content_encoding": "utf-8"}
        kombu.Producer(stock_connection.default_channel).publish(body, **routing, **content, **options)

    return publish_with_kombu


@pytest.fixture
def inflated() -> list[bytes]:
    """What kombu inflates of a compression of the tests."""
    found: list[bytes] = []

    def inflate(data: bytes) -> bytes:
        found.append(data)
        return data

    kombu.compression.register(lambda data: data, inflate, _CODING)
    return found


def _drain_results(broker: Broker) -> list[bytes]:
    consumer = broker.consume_results("me")
    found: list[bytes] = []
    for _ in range(5):
        found += consumer.drain(0.1)
    consumer.close()
    return found


def _reported_body(raw: bytes) -> bytes:
    """Return the body of what was reported: on Redis the whole element, of other transports the body as it came."""
    return base64.b64decode(json.loads(raw)["body"]) if raw.startswith(b"{") else raw


def test_a_request_published_with_kombu_is_received(harness: BrokerHarness, publish: Publish) -> None:
    publish(topology.request_queue_name("q"), b'{"a": 1}', headers={"trace": "x"})

    assert harness.receive(1) == [b'{"a": 1}']


@pytest.mark.parametrize("limits", [None, {"q": 5}], ids=["one by one", "in batches"])
def test_a_compressed_request_is_reported_as_it_is_and_never_inflated(
    make_broker: MakeBroker, publish: Publish, inflated: list[bytes], limits: dict[str, int] | None
) -> None:
    with BrokerHarness(make_broker(), limits=limits) as harness:
        for body in (b"1", b"2"):
            harness.publish(body)
        publish(topology.request_queue_name("q"), b"compressed", compression=_CODING)
        harness.publish(b"3")

        assert harness.receive(3) == [b"1", b"2", b"3"]
        harness.drain_until(lambda: bool(harness.undecodable))
    (queue, raw, reason) = harness.undecodable[0]
    assert (queue, _reported_body(raw)) == ("q", b"compressed")
    assert "compressed" in reason
    assert inflated == []


@pytest.mark.parametrize("transport", RESULT_TRANSPORTS, indirect=True)
def test_a_compressed_result_is_dropped_and_never_inflated(
    broker: Broker, publish: Publish, inflated: list[bytes]
) -> None:
    name = topology.result_queue_name("me")
    publish(name, b"compressed", compression=_CODING)
    publish(name, b"compressed", compression=_CODING)
    broker.publish_results([("me", b"1")])

    assert _drain_results(broker) == [b"1"]
    assert inflated == []


@pytest.mark.parametrize("limits", [None, {"q": 5}], ids=["one by one", "in batches"])
def test_a_request_above_the_limit_is_reported_with_its_first_bytes(
    make_broker: MakeBroker, limits: dict[str, int] | None
) -> None:
    with BrokerHarness(make_broker(max_message_bytes=1000), limits=limits) as harness:
        harness.publish(b"1", b"2", b"hunter2" * 1000, b"x" * 200)

        assert harness.receive(3) == [b"1", b"2", b"x" * 200]
    (queue, raw, reason) = harness.undecodable[0]
    assert (queue, len(raw)) == ("q", 1000)
    assert "max_message_bytes" in reason
    assert "hunter2" not in reason


@pytest.mark.parametrize("transport", RESULT_TRANSPORTS, indirect=True)
def test_a_result_above_the_limit_is_dropped(make_broker: MakeBroker) -> None:
    broker = make_broker(max_message_bytes=1000)
    broker.publish_results([("me", b"x" * 2000), ("me", b"1"), ("me", b"x" * 2000), ("me", b"2")])

    assert _drain_results(broker) == [b"1", b"2"]
