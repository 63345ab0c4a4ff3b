"""The local ECS of the system tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions


@pytest.fixture
def ecs(tmp_path: Path) -> Iterator[LocalEcs]:
    """A local ECS that runs the commands, with some latency so that kills hit calls in progress."""
    with LocalEcs(LocalEcsOptions(latency_seconds=0.02, log_dir=tmp_path / "logs")) as server:
        yield server
