"""A harness and its client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecs_queue.client.client import EcsQueue
from tests.client.harness import ClientHarness


@pytest.fixture
def harness() -> Iterator[ClientHarness]:
    made = ClientHarness()
    yield made
    made.broker.is_unavailable = False
    for client in made.clients:
        client.close()


@pytest.fixture
def queue(harness: ClientHarness) -> EcsQueue:
    return harness.make_client()
