"""The ledgers that the suite runs against: memory, Redis as fakeredis simulates it, and a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import fakeredis
import pytest

from ecs_queue.protocol.settings import ProtocolSettings
from ecs_queue.redis_connection import connect
from tests.conformance.ledger.harness import PREFIX, SETTINGS, LedgerHarness, make_memory_harness, make_redis_harness

_SERVERS = {"redis": "redis_url", "cluster": "cluster_url", "sentinel": "sentinel_url"}
IMPLEMENTATIONS = ["memory", "fakeredis", *(pytest.param(name, marks=pytest.mark.server) for name in _SERVERS)]


class MakeHarness(Protocol):
    """Makes a harness with settings of its own; once per test."""

    def __call__(self, settings: ProtocolSettings = SETTINGS) -> LedgerHarness: ...


@pytest.fixture(params=IMPLEMENTATIONS)
def make_harness(request: pytest.FixtureRequest) -> Iterator[MakeHarness]:
    """Makes a harness of one implementation of the ledger."""
    with ExitStack() as stack:

        def make(settings: ProtocolSettings = SETTINGS) -> LedgerHarness:
            if request.param == "memory":
                return make_memory_harness(settings)
            if request.param == "fakeredis":
                client = stack.enter_context(fakeredis.FakeRedis(server=fakeredis.FakeServer()))
            else:
                url = request.getfixturevalue(_SERVERS[request.param])
                client = stack.enter_context(connect(url, socket_timeout=5.0, max_connections=4, slot_key=PREFIX))
            return make_redis_harness(client, settings)

        yield make


@pytest.fixture
def harness(make_harness: MakeHarness) -> LedgerHarness:
    """A ledger with the usual settings."""
    return make_harness()
