"""The transports of the suite: memory, Redis (alone, in a cluster, behind a Sentinel), RabbitMQ, and SQS of moto."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import kombu
import pytest

from ecs_queue.broker import Broker, sqs_names, topology
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.server_keys import queue_prefix
from tests.conformance.broker.harness import BrokerHarness, broker_factory

#: Transport -> the fixture of its URL.
_REDIS_SERVERS = {"redis": "redis_url", "cluster": "cluster_url", "sentinel": "sentinel_url"}
_SERVERS = {**_REDIS_SERVERS, "rabbitmq": "rabbitmq_url"}
#: Without SQS, where results go over the ledger's Redis.
RESULT_TRANSPORTS = ["memory", *(pytest.param(name, marks=pytest.mark.server) for name in _SERVERS)]
TRANSPORTS = [*RESULT_TRANSPORTS, pytest.param("sqs", marks=[pytest.mark.server, pytest.mark.moto])]


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """The transport."""
    return str(request.param)


@pytest.fixture
def broker_url(transport: str, request: pytest.FixtureRequest) -> str:
    """The broker's URL."""
    if transport == "sqs":
        return f"sqs://?region=us-east-1&endpoint_url={request.getfixturevalue('moto_url')}"
    return "memory://" if transport == "memory" else str(request.getfixturevalue(_SERVERS[transport]))


@pytest.fixture
def namespace() -> str:
    """The brokers' namespace, in which no other test has messages."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make_broker(
    transport: str, broker_url: str, namespace: str, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Broker]]:
    """Return a function that makes brokers of a namespace; they are closed at the end."""
    ledger_url = request.getfixturevalue("redis_url") if transport == "sqs" else ""
    with broker_factory(broker_url, namespace, ledger_url) as make:
        yield make


@pytest.fixture
def stock_url(transport: str, broker_url: str, namespace: str, request: pytest.FixtureRequest) -> str:
    """The URL for kombu's own transport, which knows no cluster: that of the server that has the namespace's keys."""
    if transport == "cluster":
        owner: RedisServer = request.getfixturevalue("valkey_cluster").owner(queue_prefix(namespace))
        return owner.url
    if transport == "sqs":
        return f"sqs://{urlsplit(broker_url).query.rpartition('//')[2]}"
    return request.getfixturevalue("watched_servers").primary().url if transport == "sentinel" else broker_url


@pytest.fixture
def stock_connection(transport: str, stock_url: str, namespace: str) -> Iterator[Any]:
    """A connection of kombu's own transport, as another program has it."""
    options: dict[str, Any] = {"polling_interval": 0.01} if transport == "memory" else {}
    if transport in _REDIS_SERVERS:
        options = {"global_keyprefix": queue_prefix(namespace), "priority_steps": list(range(10))}
    with kombu.Connection(stock_url, transport_options=options) as connection:
        yield connection


@pytest.fixture
def stock_name(transport: str, namespace: str) -> Callable[[str], str]:
    """Return a function from a queue's name to that which another program must use on this transport."""
    if transport == "sqs":
        return lambda name: sqs_names.request_queue_name(namespace, topology.request_queue_of(name))
    return lambda name: name if transport in _REDIS_SERVERS else f"{namespace}.{name}"


@pytest.fixture
def broker(make_broker: Callable[..., Broker]) -> Broker:
    return make_broker()


@pytest.fixture
def harness(broker: Broker) -> Iterator[BrokerHarness]:
    """A harness of a consumer of the queue q."""
    with BrokerHarness(broker) as made:
        yield made
