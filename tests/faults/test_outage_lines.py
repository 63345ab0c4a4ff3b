"""A real server stops and starts: what worker and client log of that."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.states import State
from tests.faults.harness import FaultHarness
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

_SUBJECT = "the server of ledger and broker"
#: Failures that are worth the name of a repeated one: some seconds of an outage.
_FAILURES = 12


def test_an_outage_is_two_lines_of_the_worker_and_two_of_the_client(
    own_redis: RedisServer, make_harness: Callable[..., FaultHarness], caplog: pytest.LogCaptureFixture
) -> None:
    harness = make_harness(own_redis.url, journal=False)
    harness.start_worker()
    (handle,) = harness.queue.submit_many([{"id": "a", "command": ["true"]}])
    harness.wait_for_state(State.LAUNCHED, "a")

    def count(event: str) -> int:
        return [name for name, _ in list(harness.emitted)].count(event)

    with caplog.at_level(logging.INFO, "ecs_queue"), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(handle.result, 60)
        own_redis.kill()
        wait_until(lambda: count("service.retried") >= _FAILURES, "the services fail again and again")
        wait_until(lambda: "Waiting for results" in caplog.text, "the client has noticed")
        own_redis.start()
        wait_until(lambda: count("service.recovered") == 1, "the worker works again")
        wait_until(lambda: caplog.text.count("Waiting for results") == 2, "the client too")
        harness.end_all_tasks()
        assert waiting.result().succeeded
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" failed, ")[0] for line in lines if " failed, " in line] == [_SUBJECT]
    # Which of the two is first to reach the server is not fixed.
    assert {line.partition(" works again ")[0] for line in lines if " works again " in line} == {
        _SUBJECT,
        "Waiting for results: the ledger",
    }
    assert caplog.text.count(" works again ") == 2
    assert len([record for record in caplog.records if record.levelno > logging.INFO]) == 2
