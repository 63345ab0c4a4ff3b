"""The connection to a Redis or Valkey, for broker, ledger and journal alike.

A client of `connect` is an ordinary `redis.Redis` whose connections all lead to one server: the one in the URL, the
primary that Sentinels name, or the node of a cluster that owns the namespace's slot. So a pipeline, a blocking pop and
a barrier (WAIT, WAITAOF) mean what they mean on a single server. When the primary moves, the next connection finds it:
`route.py` has the rules.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping
from typing import Any

import redis
import redis.exceptions
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from ecs_queue.error_text import error_text
from ecs_queue.errors import ConfigError
from ecs_queue.redis_connection.connections import (
    NO_MAINTENANCE_NOTIFICATIONS,
    RoutedConnection,
    RoutedSSLConnection,
)
from ecs_queue.redis_connection.iam import MAX_CONNECTION_SECONDS, IamCredentials
from ecs_queue.redis_connection.locators import ClusterLocator, SentinelLocator, ServerAsker, SingleLocator
from ecs_queue.redis_connection.pipeline import run_pipeline
from ecs_queue.redis_connection.route import Route
from ecs_queue.server_url import ServerKind, ServerUrl, parse_server_url
from ecs_queue.server_url.iam import IamLogin, find_iam_target

__all__ = ["ask_each_sentinel", "connect", "run_pipeline", "suspect_primary"]

#: What a call is repeated for, once: its connection may have died while it was idle. MOVED says that nothing was done.
_REPEATED_AFTER = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    socket.timeout,
    redis.exceptions.MovedError,
)


def connect(
    url: str,
    *,
    socket_timeout: float,
    max_connections: int,
    key: str = "ledger_url",
    slot_key: str = "",
    iam: IamLogin | None = None,
) -> redis.Redis:
    """Return a client whose waits are all bounded. It connects with the first command.

    A command is repeated once, immediately, after a lost connection and after MOVED; so is a `run_pipeline` as a whole,
    and a pipeline of redis-py after a lost connection only. Every other answer of a server that is not the primary any
    more (READONLY, CLUSTERDOWN, ASK, LOADING) is an error, and the next command looks for the primary. ASK is never
    followed: a script there would see only the keys that have arrived.

    Args:
        url: Where the server is, in any form that `server_url` reads.
        socket_timeout: Time limit of every answer, in seconds; the URL's own wins.
        max_connections: Maximum number of connections at the same time; the URL's own wins, and then a call waits for
            a free one.
        key: The configuration key that the URL comes from, for the error.
        slot_key: A key of the cluster's slot that has every key of the namespace; of no meaning without a cluster.
        iam: Who logs in with tokens of IAM in place of a password.

    Raises:
        ConfigError: The URL cannot be used.
    """
    try:
        parsed = parse_server_url(url)
        credentials = IamCredentials(find_iam_target(iam, parsed)) if iam else None
        return _open_client(parsed, socket_timeout, max_connections, slot_key, credentials)
    except (ConfigError, ValueError, TypeError, redis.exceptions.RedisError) as error:
        problem = error_text(error) if isinstance(error, ConfigError) else f"found a {type(error).__name__}"
        # Not `from error`: a library's message may quote a part of the URL.
        raise ConfigError(
            f"{key} is no usable Redis URL (it is not shown, it may hold a password): {problem}; expected "
            "redis://USER:PASSWORD@HOST:PORT/DATABASE, with / ? # @ in the password percent-encoded"
        ) from None


def suspect_primary(client: Any, error: Exception) -> None:
    """Let the next call make its connection anew, to where the primary is then.

    Args:
        client: Of `connect`; nothing is done with another one.
        error: What a primary says that another one may have replaced, and that the server does not call an error.
    """
    route = client.connection_pool.connection_kwargs.get("route")
    if route is not None:
        route.suspect(route.version, error)


def ask_each_sentinel(url: str, seconds: float) -> dict[str, str]:
    """Return which primary each Sentinel of a URL names; "" for one that names none.

    Args:
        url: A URL that `connect` accepts; of another kind than `sentinel://` there is nothing to return.
        seconds: How long to wait for each of them.

    Returns:
        HOST:PORT of a Sentinel -> HOST:PORT of the primary.
    """
    parsed = parse_server_url(url)
    if parsed.kind is not ServerKind.SENTINEL:
        return {}
    options = {name: value for name, value in parsed.options.items() if name != "max_connections"}
    asker = ServerAsker(options, is_encrypted=parsed.is_encrypted, seconds=seconds).with_login(parsed.sentinel_login)
    named = {}
    for host, port in parsed.addresses:
        try:
            primary = SentinelLocator(asker, [(host, port)], parsed.service).find()
            named[f"{host}:{port}"] = f"{primary.host}:{primary.port}"
        except redis.exceptions.RedisError:
            named[f"{host}:{port}"] = ""
    return named


def _open_client(
    url: ServerUrl, socket_timeout: float, max_connections: int, slot_key: str, credentials: IamCredentials | None
) -> redis.Redis:
    options: dict[str, Any] = {
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": url.options.get("socket_timeout", socket_timeout),
        "health_check_interval": 25,
        "client_name": "ecs-queue",
        **url.options,
    }
    pool_class: type[redis.ConnectionPool] = redis.ConnectionPool
    pool_options: dict[str, Any] = {"max_connections": options.pop("max_connections", max_connections)}
    if "max_connections" in url.options:
        pool_class = redis.BlockingConnectionPool
        pool_options["timeout"] = options["socket_timeout"]
    if url.kind is ServerKind.SOCKET:
        options.pop("socket_keepalive", None)
        options |= {"path": url.path, "connection_class": redis.UnixDomainSocketConnection}
    else:
        options.setdefault("socket_keepalive", True)
        connection_class = RoutedSSLConnection if url.is_encrypted else RoutedConnection
        if credentials:
            options["credential_provider"] = credentials
        route = _make_route(url, options, slot_key)
        max_seconds = MAX_CONNECTION_SECONDS if credentials else math.inf
        options |= {"connection_class": connection_class, "route": route, "max_seconds": max_seconds}
    pool = pool_class(
        **pool_options,
        **options,
        **NO_MAINTENANCE_NOTIFICATIONS,
        retry=Retry(ConstantBackoff(0.05), 1, _REPEATED_AFTER),
    )
    return redis.Redis.from_pool(pool)


def _make_route(url: ServerUrl, options: Mapping[str, Any], slot_key: str) -> Route:
    asker = ServerAsker(options, is_encrypted=url.is_encrypted, seconds=options["socket_connect_timeout"])
    if url.kind is ServerKind.SENTINEL:
        return Route(SentinelLocator(asker.with_login(url.sentinel_login), url.addresses, url.service))
    cluster = ClusterLocator(asker, url.addresses, slot_key)
    if url.kind is ServerKind.CLUSTER:
        return Route(cluster)
    single = SingleLocator(url.addresses[0], cluster, url.options.get("db", 0))
    return Route(single, single.recognize)
