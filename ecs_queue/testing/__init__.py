"""A queue in memory for the tests of programs that use ecs-queue: no server, no AWS, and a clock that the test moves.

    from ecs_queue.testing import Exit, MemoryQueue, Task

    def end(task: Task) -> Exit:
        return Exit(3 if "bad" in task.command else 0, after=60)

    with MemoryQueue(end) as queue:
        assert queue.submit(["run", "bad"]).result().exit_code == 3

The ledger's rules, the launcher and the poller are the real ones; only ECS, the broker and the time are not.
docs/testing.md is the guide, `ecs_queue.testing.plugin` has fixtures for pytest.
"""

from __future__ import annotations

from ecs_queue.testing.clock import FakeClock
from ecs_queue.testing.ecs import (
    Capacity,
    Exit,
    Interruption,
    Outcome,
    OutcomeFunction,
    StartFailure,
    Task,
    Throttle,
    run_command,
    succeed,
)
from ecs_queue.testing.queue import MemoryQueue, NothingEnds

__all__ = [
    "Capacity",
    "Exit",
    "FakeClock",
    "Interruption",
    "MemoryQueue",
    "NothingEnds",
    "Outcome",
    "OutcomeFunction",
    "StartFailure",
    "Task",
    "Throttle",
    "run_command",
    "succeed",
]
