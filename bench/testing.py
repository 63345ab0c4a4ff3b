"""The time that a user's own tests take with `ecs_queue.testing`, one queue for each scenario, without a server."""

from __future__ import annotations

import time

from bench.measurement import Measurement, median_and_range
from ecs_queue.testing import Exit, Interruption, MemoryQueue, Outcome, StartFailure, Task

_ROUNDS = 5


def run(scenarios: int) -> list[Measurement]:
    """See `bench.__main__`."""
    _run_scenario(0)  # imports, and botocore's model of RunTask
    seconds = []
    for _ in range(_ROUNDS):
        before = time.perf_counter()
        for number in range(scenarios):
            _run_scenario(number)
        seconds.append(time.perf_counter() - before)
    return [Measurement(f"{scenarios} scenarios of a test", f"{median_and_range(seconds)} s", "< 2 s for 100")]


def _run_scenario(number: int) -> None:
    """Submit a request that succeeds, fails, is interrupted, starts at the second attempt or runs for an hour."""
    kinds: list[Outcome] = [0, Exit(3, after=60), Interruption(after=30), StartFailure(), Exit(after=3600)]

    def end(task: Task) -> Outcome:
        return Exit(after=10) if task.launch > 1 else kinds[number % len(kinds)]

    with MemoryQueue(end) as queue:
        result = queue.submit(["run", str(number)], relaunch="interrupted").result()
    assert result.state == ("FAILED" if number % len(kinds) == 1 else "SUCCESS"), result
