"""Runs calls with the container's side in this process."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ecs_queue.calls.container import run_call
from ecs_queue.calls.payload import CallOptions
from ecs_queue.calls.store import MemoryCallStore
from ecs_queue.config.keyring import runner_keys
from ecs_queue.errors import UnverifiedMessage
from ecs_queue.runs.runner_key import RunnerKeys
from ecs_queue.runs.runner_options import CALL_VARIABLE
from ecs_queue.testing import Exit, MemoryQueue, Outcome, Task

TIMEOUT = 30.0
SIGNED = {"AIRFLOW__ECS_QUEUE__SIGNING_KEYS": "a:" + "k" * 40}


class Containers:
    """Runs the calls of an executor in this process, with the keys that their queue's containers have."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.store = MemoryCallStore()
        self.queue = MemoryQueue(self.run, eager=True, environ=environ)
        self.keys = RunnerKeys(runner_keys(self.queue.config, "default"))
        self.before: Callable[[CallOptions], object] = lambda options: None
        self.after: Callable[[CallOptions], object] = lambda options: None

    def run(self, task: Task) -> Outcome:
        options = msgspec.json.decode(task.environment[CALL_VARIABLE], type=CallOptions)
        self.before(options)
        try:
            return run_call(options, self.store, self.keys)
        except UnverifiedMessage:
            return Exit(2)
        finally:
            self.after(options)
