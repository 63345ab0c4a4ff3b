"""The transports that the suite runs on: memory, and a real Redis."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from ecs_queue.broker import KombuBroker
from tests.conformance.broker.harness import BrokerHarness

TRANSPORTS = ["memory", pytest.param("redis", marks=pytest.mark.server)]


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """The transport."""
    return str(request.param)


@pytest.fixture
def broker_url(transport: str, request: pytest.FixtureRequest) -> str:
    """The broker's URL."""
    return "memory://" if transport == "memory" else str(request.getfixturevalue("redis_url"))


@pytest.fixture
def make_broker(broker_url: str) -> Iterator[Callable[..., KombuBroker]]:
    """Return a function that makes brokers of a namespace; they are closed at the end."""
    made: list[KombuBroker] = []
    usual = f"t{uuid.uuid4().hex[:12]}"

    def make(namespace: str = usual, visibility_timeout: float = 60.0) -> KombuBroker:
        broker = KombuBroker(broker_url, namespace, visibility_timeout=visibility_timeout, socket_timeout=5.0)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()


@pytest.fixture
def broker(make_broker: Callable[..., KombuBroker]) -> KombuBroker:
    return make_broker()


@pytest.fixture
def harness(broker: KombuBroker) -> Iterator[BrokerHarness]:
    """A harness of a consumer of the queue q."""
    with BrokerHarness(broker) as made:
        yield made
