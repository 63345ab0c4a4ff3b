"""The ledgers that the suite runs against: memory, Redis as fakeredis plays it, and a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import fakeredis
import pytest

from ecs_queue.core.protocol import Rules
from ecs_queue.ledger.retention import Retention
from ecs_queue.ledger.script import connect
from tests.conformance.ledger.lab import RULES, Lab, memory_lab, redis_lab
from tests.services import redis_server, redis_url

__all__ = ["redis_server", "redis_url"]

FORMS = ["memory", "fakeredis", "redis"]


class MakeLab(Protocol):
    """Makes a lab with rules of its own; one a test."""

    def __call__(self, rules: Rules = RULES, retention: Retention | None = None) -> Lab: ...


@pytest.fixture(params=FORMS)
def make_lab(request: pytest.FixtureRequest) -> Iterator[MakeLab]:
    """A maker of one form of the ledger."""
    with ExitStack() as stack:

        def make(rules: Rules = RULES, retention: Retention | None = None) -> Lab:
            if request.param == "memory":
                return memory_lab(rules, retention)
            if request.param == "fakeredis":
                client = stack.enter_context(fakeredis.FakeRedis(server=fakeredis.FakeServer()))
            else:
                url = request.getfixturevalue("redis_url")
                client = stack.enter_context(connect(url, socket_timeout=5.0, max_connections=4))
            return redis_lab(client, rules, retention)

        yield make


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    """A ledger with the usual rules."""
    return make_lab()
