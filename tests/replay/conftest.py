"""The journal of a real run: two workers, a local ECS with injected faults, some hundred tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.journal import JournalEvent, RedisJournal, open_journal
from ecs_queue.journal.jsonl import write_events
from ecs_queue.local.ecs import FaultOptions, LocalEcsOptions
from ecs_queue.local.stack import LocalStack, StackOptions
from ecs_queue.messages.result import TaskResult
from tests.processes import QUICK_SETTINGS
from tests.servers import require_redis_binary
from tests.wait import wait_until

#: A value that no part of a journal may contain.
SECRET = "hunter2-and-more"
FAULTS = FaultOptions(
    throttle=0.05, server_error=0.03, accept_then_drop=0.03, capacity=0.05, start_failure=0.05, seed=7
)


def make_tasks(count: int) -> list[dict[str, Any]]:
    """Every fifth task fails, and half of those may be launched again."""
    tasks = []
    for index in range(count):
        task: dict[str, Any] = {"id": f"t{index}", "command": ["sh", "-c", "exit 3" if index % 5 == 0 else "true"]}
        task["relaunch"] = "any_failure" if index % 2 == 0 else "never_started"
        task["executor_config"] = {"environment": [{"name": "DB_PASSWORD", "value": SECRET}]}
        tasks.append(task)
    return tasks


@dataclass(frozen=True)
class RecordedRun:
    """A run that has ended."""

    journal_file: Path
    events: list[JournalEvent]
    results: dict[str, TaskResult]
    journal_bytes: int


@pytest.fixture(scope="package")
def recorded_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordedRun]:
    """Run 300 tasks on two workers with all faults of the local ECS, and export the journal."""
    require_redis_binary()
    prefix = "AIRFLOW__ECS_QUEUE__"
    config_values = {name.removeprefix(prefix).lower(): value for name, value in QUICK_SETTINGS.items()}
    options = StackOptions(workers=2, config_values=config_values, ecs=LocalEcsOptions(faults=FAULTS))
    with LocalStack(options) as stack:
        with EcsQueue.from_config(environ=stack.environ) as client:
            handles = client.submit_many(make_tasks(300))
            results = {result.id: result for result in client.as_completed(handles, 100)}
        journal = open_journal(load_config(environ=stack.environ))
        wait_until(lambda: count_ended_requests(journal) >= 300, "the end of every request is in the journal", 20)
        events = list(journal.all_events())
        file = tmp_path_factory.mktemp("chaos") / "journal.jsonl"
        with file.open("wb") as sink:
            write_events(events, sink)
        yield RecordedRun(file, events, results, journal.size()[1])
        journal.close()


def count_ended_requests(journal: RedisJournal) -> int:
    """Number of requests whose end is in the journal."""
    return len({event.id for event in journal.all_events() if event.name == "request.ended"})
