"""A site, and a client on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecs_queue.client import EcsQueue
from tests.client.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.broker.fails = False
    for client in made.clients:
        client.close()


@pytest.fixture
def queue(site: Site) -> EcsQueue:
    return site.client()
