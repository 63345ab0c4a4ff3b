"""A real worker dies with a request that holds the only slot of its key: none leaks, and no two of it run at once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from ecs_queue.local.ecs import LocalEcsOptions
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.concurrency_keys import KeyCounts
from ecs_queue.server_keys import ledger_prefix
from tests.crash.harness import CrashHarness, TaskLine
from tests.crash.scenarios import ecs_with_faults
from tests.invariants import list_all_tasks

pytestmark = [pytest.mark.server, pytest.mark.slow]

_ONE_PER_KEY = {"AIRFLOW__AWS_ECS_EXECUTOR__MAX_PER_KEY": "1"}
_IDS = ("a", "b", "c", "d")


def make_line(record_id: str) -> TaskLine:
    return {"id": record_id, "command": ["true"], "concurrency_key": "customer 7"}


@pytest.mark.parametrize(
    ("point", "ecs"),
    [
        ("launch.message_claimed", LocalEcsOptions()),
        ("launch.calling", LocalEcsOptions()),
        ("launch.call_returned", LocalEcsOptions()),
        ("launch.launched", LocalEcsOptions()),
        ("launch.no_effect", ecs_with_faults(throttle=0.5)),
        ("consumer.handled", LocalEcsOptions()),
        ("sweeper.leased", LocalEcsOptions()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_worker_that_dies_here_leaks_no_slot_and_wakes_the_next_request(
    point: str, ecs: LocalEcsOptions, redis_server: RedisServer, tmp_path: Path
) -> None:
    with CrashHarness(redis_server.url, tmp_path, ecs, _ONE_PER_KEY) as harness:
        harness.submit(*map(make_line, _IDS))
        harness.wait_for_crash(harness.start_worker(point), point)
        assert harness.finish() == dict.fromkeys(_IDS, ("SUCCESS", 1))

        lifetimes = sorted((task["createdAt"], task["stoppedAt"]) for task in list_all_tasks(harness.endpoint_url))
        assert len(lifetimes) == len(_IDS)
        assert all(stopped_at <= created_at for (_, stopped_at), (created_at, _) in pairwise(lifetimes))
        assert harness.queue.ledger.count_of_key("default", "customer 7") == KeyCounts()
        assert harness.redis.keys(f"{ledger_prefix(harness.namespace)}key_*") == []
