"""A real process dies at each crash point; others continue, and nothing is lost or doubled."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from ecs_queue.crash_points import POINTS
from ecs_queue.local.redis_server import RedisServer
from tests.crash.harness import CrashHarness
from tests.crash.scenarios import SCENARIOS
from tests.servers import run_moto_server

pytestmark = [pytest.mark.server, pytest.mark.slow]


@contextmanager
def run_events_queue() -> Iterator[str]:
    """The URL of a new queue in moto's SQS.

    All moto servers of a process share their queues, and a long poll whose client was killed goes on for seconds. In a
    queue that an earlier test used, it would take the first events.
    """
    with (
        run_moto_server() as endpoint,
        closing(boto3.client("sqs", region_name="us-east-1", endpoint_url=endpoint)) as sqs,
    ):
        yield str(sqs.create_queue(QueueName=f"events-{uuid.uuid4().hex}")["QueueUrl"])


@pytest.mark.parametrize("point", [point for point in POINTS if not point.startswith(("airflow.", "runner."))])
def test_a_process_that_dies_here_loses_and_doubles_nothing(
    point: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    scenario = SCENARIOS[point]
    with ExitStack() as stack:
        ecs, settings = scenario.ecs, scenario.settings
        if scenario.with_events:
            url = stack.enter_context(run_events_queue())
            ecs, settings = replace(ecs, event_queue_url=url), {**settings, "EVENT_QUEUE_URL": url}
        harness = stack.enter_context(CrashHarness(redis_server.url, tmp_path, ecs, settings))
        scenario.crash(harness, point)
        assert scenario.finish(harness) == scenario.expected
