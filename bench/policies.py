"""Spot refuses for a minute and takes a tenth of the tasks back: how long a batch takes with and without a fallback.

A `MemoryQueue`: the real launcher, poller and ledger rules, with an ECS in memory and a clock that the bench moves.
"""

from __future__ import annotations

import json
import logging
import random

from bench.measurement import Measurement
from ecs_queue.testing import Capacity, Exit, Interruption, MemoryQueue, Outcome, Task

_KEY = "AIRFLOW__AWS_ECS_EXECUTOR__"
_SPOT, _ON_DEMAND = ([{"capacityProvider": name, "weight": 1}] for name in ("FARGATE_SPOT", "FARGATE"))
_REFUSING_SECONDS, _RUN_SECONDS, _INTERRUPTED = 60.0, 10.0, 0.1


def run(size: int) -> list[Measurement]:
    """Measure both sides; `size` is the number of requests."""
    logging.getLogger("ecs_queue").setLevel(logging.CRITICAL)  # each refusal is a warning
    seconds, refused = _run_side(size, [{"capacity_provider_strategy": _ON_DEMAND}])
    alone, refused_alone = _run_side(size, [])
    share = seconds / alone
    times = f"{seconds:.0f} s of the clock, {alone:.0f} s on Spot alone: {share:.2f} x"
    calls = f"{refused:.2f}%, on Spot alone {refused_alone:.0f}%"
    return [
        Measurement(f"fallback to on-demand: last of {size} ends", times, "<= 0.5 x", 1 / share),
        Measurement("fallback to on-demand: RunTask calls refused", calls, "<= 5%"),
    ]


def _run_side(size: int, fallback: list[object]) -> tuple[float, float]:
    """Return the seconds until the last end, and the refused share of the calls in percent."""
    rng, calls, refusals = random.Random(1), 0, 0
    environ = {f"{_KEY}LAUNCH_TYPE": "", f"{_KEY}CAPACITY_PROVIDER_STRATEGY": json.dumps(_SPOT)}
    environ[f"{_KEY}CAPACITY_FALLBACK"] = json.dumps(fallback)

    def outcome(task: Task) -> Outcome:
        nonlocal calls, refusals
        calls += 1
        if task.run_task["capacityProviderStrategy"] == _SPOT:
            if queue.clock() - started < _REFUSING_SECONDS:
                refusals += 1
                return Capacity()
            if rng.random() < _INTERRUPTED:
                return Interruption(after=_RUN_SECONDS / 2)
        return Exit(after=_RUN_SECONDS)

    with MemoryQueue(outcome, environ=environ) as queue:
        started = queue.clock()
        handles = [queue.submit(["true"], relaunch="interrupted") for _ in range(size)]
        for handle in handles:
            handle.result()
        return queue.clock() - started, 100.0 * refusals / calls
