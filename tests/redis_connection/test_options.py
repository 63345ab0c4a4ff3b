"""Options in the URL of a server."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from ecs_queue.broker import RedisBroker
from ecs_queue.errors import ConfigError
from ecs_queue.redis_connection import connect
from ecs_queue.server_url import parse_server_url


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        ("ssl_cert_reqs=CERT_REQUIRED", "ssl_cert_reqs", "required"),
        ("ssl_cert_reqs=CERT_NONE&db=2", "ssl_cert_reqs", "none"),
        ("ssl_cert_reqs=optional", "ssl_cert_reqs", "optional"),
        ("ssl_check_hostname=false", "ssl_check_hostname", False),
        ("socket_timeout=5", "socket_timeout", 5.0),
    ],
)
def test_an_option_has_its_meaning_in_celerys_and_in_redis_pys_spelling(options: str, key: str, value: object) -> None:
    with connect(f"rediss://h:1/0?{options}", socket_timeout=1.0, max_connections=1) as client:
        assert client.connection_pool.connection_kwargs[key] == value


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("ssl_cert_reqs=maybe", "expected required, optional or none"),
        ("protocol=9", "protocol"),
        ("db=a", "'db'"),
        ("retry=3", "'retry'"),
        ("retry_on_error=x", "'retry_on_error'"),
        ("decode_responses=true", "'decode_responses'"),
        ("ssl_unknown=1", "'ssl_unknown'"),
        ("x=y", "'x'"),
    ],
)
def test_an_option_that_cannot_be_used_is_an_error_of_the_configuration(option: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as error:
        connect(f"rediss://user:secret@h:1/0?{option}", socket_timeout=1.0, max_connections=1, key="broker_url")
    assert "broker_url" in str(error.value)
    assert "secret" not in str(error.value)


def test_the_docs_have_every_option() -> None:
    with pytest.raises(ConfigError, match="known are") as caught:
        parse_server_url("redis://h?zzzzzz=1")
    known = re.findall(r"\w+", str(caught.value).partition("known are ")[2])
    page = Path(__file__).parents[2].joinpath("docs", "configuration.md").read_text(encoding="utf-8")
    documented = page.partition("## URLs of servers")[2].partition("\n## ")[0]
    assert len(known) > 20
    assert [name for name in known if f"`{name}`" not in documented and f"`{name}=" not in documented] == []


@pytest.mark.server
def test_calls_wait_for_one_of_the_few_connections_that_the_url_allows(redis_url: str) -> None:
    """Heroku's small plans admit twenty."""
    with (
        connect(f"{redis_url}?max_connections=2", socket_timeout=5.0, max_connections=48) as client,
        ThreadPoolExecutor(16) as threads,
    ):
        assert all(threads.map(lambda _: client.ping(), range(200)))
        with redis.Redis.from_url(redis_url) as admin:
            clients: Any = admin.client_list()
        assert sum(each["name"] == "ecs-queue" for each in clients) <= 2


@pytest.mark.server
def test_a_wait_for_messages_is_shorter_than_the_time_limit_of_the_url(redis_url: str) -> None:
    broker = RedisBroker(f"{redis_url}?socket_timeout=0.4", "test", visibility_timeout=60.0, socket_timeout=30.0)
    consumer = broker.consume_results("me")
    assert consumer.drain(1.0) == []
    consumer.close()
    broker.close()
