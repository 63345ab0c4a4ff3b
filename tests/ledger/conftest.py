"""The ledger on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ecs_queue.redis_connection import connect
from tests.conformance.ledger.harness import LedgerHarness, make_redis_harness


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """A connection to an empty real server."""
    with connect(redis_url, socket_timeout=5.0, max_connections=4) as client:
        yield client


@pytest.fixture
def harness(client: Any) -> LedgerHarness:
    """The ledger on it."""
    return make_redis_harness(client)
