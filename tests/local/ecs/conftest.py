"""Local ECS servers that end with their test."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ecs_queue.local.ecs import ContainerRunner, LocalEcs, LocalEcsOptions, TimerRunner
from tests.local.ecs.checked_client import make_checked_client

StartEcs = Callable[..., tuple[LocalEcs, Any]]


@pytest.fixture
def start_ecs() -> Iterator[StartEcs]:
    """``start_ecs(runner=..., clock=..., option=...)`` -> the server and a checked client."""
    with contextlib.ExitStack() as stack:

        def start(
            runner: ContainerRunner | None = None, clock: Callable[[], float] | None = None, **options: Any
        ) -> tuple[LocalEcs, Any]:
            server = stack.enter_context(
                LocalEcs(LocalEcsOptions(**options), runner or TimerRunner(), clock=clock or time.time)
            )
            client = make_checked_client(server)
            stack.callback(client.close)
            return server, client

        yield start
