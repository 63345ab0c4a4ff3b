"""A journal of a real run: two workers, a local ECS that fails on purpose, some hundred tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.config import Config, load_config
from ecs_queue.journal import JournalEvent, RedisJournal, open_journal
from ecs_queue.journal.jsonl import write_events
from ecs_queue.local.ecs import FaultOptions, LocalEcsOptions
from ecs_queue.local.stack import LocalStack, StackOptions
from ecs_queue.messages.envelope import TaskResult
from tests.processes import QUICK_SETTINGS
from tests.servers import require_redis_binary
from tests.wait import wait_until

#: What no part of a journal may show.
SECRET = "hunter2-and-more"
FAULTS = FaultOptions(
    throttle=0.05, server_error=0.03, accept_then_drop=0.03, capacity=0.05, start_failure=0.05, seed=7
)


def make_tasks(number: int) -> list[dict[str, Any]]:
    """One in five fails, and half of those may be launched again."""
    tasks = []
    for place in range(number):
        task: dict[str, Any] = {"id": f"t{place}", "command": ["sh", "-c", "exit 3" if place % 5 == 0 else "true"]}
        task["relaunch"] = "any_failure" if place % 2 == 0 else "never_started"
        task["executor_config"] = {"environment": [{"name": "DB_PASSWORD", "value": SECRET}]}
        tasks.append(task)
    return tasks


@dataclass(frozen=True)
class RecordedRun:
    """What has happened, when all of it is over."""

    journal_file: Path
    events: list[JournalEvent]
    results: dict[str, TaskResult]
    journal_bytes: int


@pytest.fixture(scope="package")
def recorded_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordedRun]:
    """300 tasks on two workers with every fault of the local ECS on, and the exported journal of it."""
    require_redis_binary()
    prefix = "AIRFLOW__ECS_QUEUE__"
    quick = {name.removeprefix(prefix).lower(): value for name, value in QUICK_SETTINGS.items()}
    options = StackOptions(workers=2, config_values=quick, ecs=LocalEcsOptions(faults=FAULTS))
    with LocalStack(options) as stack:
        with EcsQueue.from_config(environ=stack.environ) as client:
            handles = client.submit_many(make_tasks(300))
            results = {result.id: result for result in client.as_completed(handles, 100)}
        journal = open_journal(load_config(environ=stack.environ))
        wait_until(lambda: ended_request_count(journal) >= 300, "the end of every request is in the journal", 20)
        events = list(journal.all_events())
        file = tmp_path_factory.mktemp("chaos") / "journal.jsonl"
        with file.open("wb") as sink:
            write_events(events, sink)
        yield RecordedRun(file, events, results, journal.size()[1])
        journal.close()


def ended_request_count(journal: RedisJournal) -> int:
    """How many requests have ended, as far as the journal says."""
    return len({event.id for event in journal.all_events() if event.name == "request.ended"})


@pytest.fixture
def config(redis_url: str) -> Config:
    """A configuration whose journal is on a real, empty server."""
    return load_config(environ={}, overrides={"broker_url": redis_url})


@pytest.fixture
def journal(config: Config) -> Iterator[RedisJournal]:
    """A journal on a real, empty server."""
    opened = open_journal(config)
    yield opened
    opened.close()
