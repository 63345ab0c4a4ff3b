"""Brokers on a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from ecs_queue.broker import KombuBroker
from tests.conformance.broker.harness import BrokerHarness


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """A plain client of the server."""
    with redis.Redis.from_url(redis_url) as plain:
        yield plain


@pytest.fixture
def make_broker(redis_url: str) -> Iterator[Callable[..., KombuBroker]]:
    """Return a function that makes brokers; they are closed at the end."""
    made: list[KombuBroker] = []

    def make(namespace: str = "ns", visibility_timeout: float = 60.0) -> KombuBroker:
        broker = KombuBroker(redis_url, namespace, visibility_timeout=visibility_timeout, socket_timeout=5.0)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()


@pytest.fixture
def broker(make_broker: Callable[..., KombuBroker]) -> KombuBroker:
    return make_broker()


@pytest.fixture
def restore(make_broker: Callable[..., KombuBroker]) -> Callable[[], None]:
    """Let a third consumer requeue all unacknowledged messages, as if the visibility timeout were over."""

    def restore_now() -> None:
        time.sleep(0.01)
        with BrokerHarness(make_broker(visibility_timeout=0.001), queues=["another"]) as hasty:
            hasty.consumer.restore_expired()

    return restore_now
