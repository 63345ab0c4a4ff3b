"""Tasks that say what they see in a warm pool; each appends a line of JSON to `seen.jsonl` beside this file."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

SEEN = Path(__file__).with_name("seen.jsonl")


def note(name: str) -> int:
    """Append what this process sees; return the number of this try."""
    instance = get_current_context()["ti"]
    seen = {
        "task": name,
        "try": instance.try_number,
        "pid": os.getpid(),
        "preloaded": "ecs_queue.airflow.preload" in sys.modules,
        "temporary": tempfile.gettempdir() == os.environ["TMPDIR"],
        "random": random.random(),
        "left": os.environ.get("LEFT_BY_A_TASK"),
    }
    with SEEN.open("a") as file:
        file.write(json.dumps(seen) + "\n")
    os.environ["LEFT_BY_A_TASK"] = name
    print(f"the line of {name}")
    return int(instance.try_number)


@dag(schedule=None)
def warm():
    """Mapped tasks, one that fails, one that is retried, and the sum of the mapped ones."""

    @task
    def square(number: int) -> int:
        note(f"square {number}")
        return number * number

    @task
    def add(numbers) -> None:
        note(f"sum {sum(numbers)}")

    @task(retries=0)
    def fails() -> None:
        note("fails")
        raise ValueError("it always fails")

    @task(retries=1, retry_delay=timedelta(0))
    def flaky() -> None:
        if note("flaky") == 1:
            raise ValueError("it fails once")

    add(square.expand(number=list(range(8))))
    fails()
    flaky()


@dag(schedule=None)
def stopped():
    """A task that runs until it is cleared, and ends at once when it runs again."""

    @task(retries=0)
    def linger() -> None:
        if note("linger") == 1:
            time.sleep(300)

    linger()


warm()
stopped()
