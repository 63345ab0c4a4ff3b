"""Brokers on a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from ecs_queue.broker import Broker
from tests.conformance.broker.harness import BrokerHarness, broker_factory


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """A plain client of the server."""
    with redis.Redis.from_url(redis_url) as plain:
        yield plain


@pytest.fixture
def make_broker(redis_url: str) -> Iterator[Callable[..., Broker]]:
    """Return a function that makes brokers of the namespace `ns`; they are closed at the end."""
    with broker_factory(redis_url, "ns") as make:
        yield make


@pytest.fixture
def broker(make_broker: Callable[..., Broker]) -> Broker:
    return make_broker()


@pytest.fixture
def restore(make_broker: Callable[..., Broker]) -> Callable[[], None]:
    """Let a third consumer requeue all unacknowledged messages, as if the visibility timeout were over."""

    def restore_now() -> None:
        time.sleep(0.01)
        with BrokerHarness(make_broker(visibility_timeout=0.001), queues=["another"]) as hasty:
            while hasty.consumer.restore_expired():
                pass

    return restore_now
