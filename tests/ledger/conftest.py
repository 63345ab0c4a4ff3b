"""A real server for what only Redis has."""

from __future__ import annotations

from tests.servers import redis_server, redis_url

__all__ = ["redis_server", "redis_url"]
