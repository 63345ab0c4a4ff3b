"""Containers of calls, and an executor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecs_queue import EcsExecutor
from tests.calls.harness import SIGNED, Containers


@pytest.fixture(params=[{}, SIGNED], ids=["without keys", "with signing_keys"])
def containers(request: pytest.FixtureRequest) -> Iterator[Containers]:
    made = Containers(request.param)
    with made.queue:
        yield made


@pytest.fixture
def executor(containers: Containers) -> Iterator[EcsExecutor]:
    with EcsExecutor(containers.queue, store=containers.store, cpu=256) as made:
        yield made


@pytest.fixture
def signed() -> Iterator[Containers]:
    made = Containers(SIGNED)
    with made.queue:
        yield made
