"""Shared by all tests: servers, an isolated AWS environment, markers, no deadline for Hypothesis's examples."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

pytest_plugins = ["tests.servers", "pytester"]

# A process started by nohup or in the background of a script ignores these, and so would each process of a test.
for _number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# CI machines are slow at times; pytest's own timeout ends a test that hangs.
settings.register_profile("ecs-queue", deadline=None)
settings.load_profile("ecs-queue")

# The modules and the items of all tests are a million objects that stay until the end. If the garbage collector went
# through them, that would be half of the time of collecting the tests, and a sixth of that of tests that compute.
gc.disable()

_OWN_VARIABLES = ("AIRFLOW__ECS_QUEUE__", "AIRFLOW__AWS_ECS_EXECUTOR", "ECS_QUEUE_", "AWS_")
_DUMMY_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}

#: A test that asks for one of these, directly or through another fixture, needs a real server.
_SERVER_FIXTURES = {
    "redis_server",
    "make_redis_server",
    "moto_url",
    "rabbitmq_url",
    "deployment",
    "recorded_run",
    "valkey_cluster",
    "watched_servers",
    "chromium",
}
_MOTO_FIXTURES = {"moto_url", "sqs"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a real server, or moto."""
    for item in items:
        if isinstance(item, pytest.Function) and not _SERVER_FIXTURES.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.server)
        if isinstance(item, pytest.Function) and not _MOTO_FIXTURES.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.moto)


def pytest_collection_finish() -> None:
    """Let the garbage collector see only what the tests themselves make."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _isolate_aws_environment() -> Iterator[None]:
    """Keep tests away from AWS accounts and from the user's own configuration."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_OWN_VARIABLES)]:
            patch.delenv(name)
        for name, value in _DUMMY_CREDENTIALS.items():
            patch.setenv(name, value)
        yield
