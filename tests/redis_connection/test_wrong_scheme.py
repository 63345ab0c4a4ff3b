"""A URL with TLS for a server without it, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis.exceptions

from ecs_queue.redis_connection import connect
from tests.system.secure_redis import run_secure_redis

pytestmark = pytest.mark.server


def open_client(url: str) -> Any:
    return connect(url, socket_timeout=1.0, max_connections=1)


def test_tls_where_the_server_has_none_says_what_to_write(redis_url: str) -> None:
    """The server takes the handshake for a part of a command, and waits for its end."""
    with (
        open_client(redis_url.replace("redis://", "rediss://")) as client,
        pytest.raises(redis.exceptions.RedisError, match="no TLS at this port, begin the URL with redis://"),
    ):
        client.ping()


def test_no_tls_where_the_server_has_it_says_what_to_write(tmp_path: Path) -> None:
    with (
        run_secure_redis(tmp_path) as server,
        open_client(f"redis://127.0.0.1:{server.port}/0") as client,
        pytest.raises(redis.exceptions.ConnectionError, match="if the server has TLS, begin the URL with rediss://"),
    ):
        client.ping()


def test_a_connection_that_is_lost_later_is_no_question_of_tls(redis_url: str) -> None:
    with open_client(redis_url) as client, redis.Redis.from_url(redis_url) as admin:
        client.ping()
        first = client.connection_pool.get_connection()
        admin.client_kill_filter(_type="normal", skipme=True)
        first.send_command("PING", check_health=False)
        with pytest.raises(redis.exceptions.ConnectionError) as caught:
            first.read_response()
        client.connection_pool.release(first)
    assert "TLS" not in str(caught.value)
