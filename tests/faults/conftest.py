"""Harnesses and local ECS servers for the tests of faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions
from tests.faults.harness import FaultHarness


@pytest.fixture
def make_harness() -> Iterator[Callable[..., FaultHarness]]:
    """Makes harnesses whose workers are stopped at the end."""
    with ExitStack() as stack:
        yield lambda url, **keys: stack.enter_context(FaultHarness(url, **keys))


@pytest.fixture
def local_ecs(tmp_path: Path) -> Iterator[LocalEcs]:
    """A local ECS that runs the commands."""
    with LocalEcs(LocalEcsOptions(log_dir=tmp_path / "logs")) as ecs:
        yield ecs


@pytest.fixture
def forgetful_ecs(tmp_path: Path) -> Iterator[LocalEcs]:
    """A local ECS that forgets stopped tasks after a second."""
    with LocalEcs(LocalEcsOptions(log_dir=tmp_path / "logs", retention_seconds=1.0)) as ecs:
        yield ecs
