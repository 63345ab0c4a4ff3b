"""Options in the URL of a server."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from ecs_queue.broker import RequestMessage, open_broker
from ecs_queue.errors import ConfigError
from ecs_queue.ledger import open_ledger
from ecs_queue.redis_connection import connect
from ecs_queue.server_url import SERVER_TICK_SECONDS, parse_server_url
from tests.wait import wait_until
from tests.worker.harness import make_config


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
@pytest.mark.parametrize("seconds", [0.3, 0.5, 1.0])
def test_no_wait_at_the_server_reaches_the_time_limit_of_the_url(
    redis_url: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle server ends a wait up to 100 ms late, and a connection that has timed out is closed."""
    longest: list[float] = []
    plain_execute: Any = redis.Redis.execute_command

    def execute(client: Any, *command: Any, **options: Any) -> Any:
        if command[0] in ("BRPOP", "BZPOPMIN"):
            longest.append(float(command[-1]))
        return plain_execute(client, *command, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", execute)
    url = f"{redis_url}?socket_timeout={seconds}"
    config = make_config(None, broker_url=url, socket_timeout_seconds=30)
    with closing(open_broker(config)) as broker, closing(open_ledger(config)) as ledger:
        with closing(broker.consume_results("me")) as results:
            assert results.drain(0.3) == []
        with closing(broker.consume_requests(["q"], 4, print, print)) as requests:
            assert requests.drain(0.3) == 0
        began = time.monotonic()
        assert ledger.pop_changed_runs(0.3, 10) == []
        assert time.monotonic() - began > 0.05  # a service that calls it again does not spin
    assert all(0 < each <= seconds - 3 * SERVER_TICK_SECONDS + 1e-9 for each in longest)
    assert bool(longest) == (seconds > 3 * SERVER_TICK_SECONDS)


@pytest.mark.server
def test_what_comes_is_found_where_no_wait_at_the_server_is_possible(redis_url: str) -> None:
    """`socket_timeout=0.1` is in redis-py's example for Sentinels. Here it is a little more, for a busy machine."""
    config = make_config(None, broker_url=f"{redis_url}?socket_timeout=0.3")
    received: list[bytes] = []
    with closing(open_broker(config)) as broker:
        with closing(broker.consume_results("me")) as results:
            timer = threading.Timer(0.1, lambda: broker.publish_results([("me", b"{}")]))
            timer.start()
            assert results.drain(30) == [b"{}"]
            timer.join()
        with closing(broker.consume_requests(["q"], 4, lambda each: received.append(each.body), print)) as requests:
            timer = threading.Timer(0.1, lambda: broker.publish_requests([RequestMessage("q", b"{}")]))
            timer.start()
            wait_until(lambda: requests.drain(1.0), "the message")
            timer.join()
    assert received == [b"{}"]
