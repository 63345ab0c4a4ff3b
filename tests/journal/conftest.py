"""A journal on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecs_queue.config import Config, load_config
from ecs_queue.journal import RedisJournal, open_journal


@pytest.fixture
def config(redis_url: str) -> Config:
    """A configuration whose journal is on a real, empty server."""
    return load_config(environ={}, overrides={"broker_url": redis_url})


@pytest.fixture
def journal(config: Config) -> Iterator[RedisJournal]:
    """A journal on a real, empty server."""
    opened = open_journal(config)
    yield opened
    opened.close()
