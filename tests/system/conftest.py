"""Servers of their own for the system tests: some kill them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions
from ecs_queue.local.redis_server import RedisServer
from tests.servers import require_redis_binary


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A real server with an append-only file, so that it may be killed and restarted."""
    server = RedisServer(binary=require_redis_binary(), data_dir=tmp_path / "redis", appendonly="always")
    with server:
        yield server


@pytest.fixture
def ecs(tmp_path: Path) -> Iterator[LocalEcs]:
    """A local ECS that really runs the commands, with some latency so that kills hit calls in flight."""
    with LocalEcs(LocalEcsOptions(latency_seconds=0.02, log_dir=tmp_path / "logs")) as server:
        yield server
