"""From a task's stop to its delivered result, by polls and by events: how late, and at the cost of which calls."""

from __future__ import annotations

import datetime
import time
from contextlib import ExitStack
from typing import NamedTuple

from bench.row import Row
from bench.stack import DESCRIBE_RATE, Load, Stack, following, quantile, until
from ecs_queue.client import EcsQueue, Handle
from ecs_queue.core.states import State

#: All tasks end within so long. Seconds.
WINDOW = 60.0
#: How long the launches may take, at the slowest. Tasks a second, and seconds on top.
_LAUNCHES, _SPARE = 100, 15.0
_SOON = 12.0
_AT_ONCE = 1000


class Found(NamedTuple):
    """`delays`: seconds from stop to delivery. `reads`: DescribeTasks and ListTasks calls, and within the window of
    seconds. `load`: within the window, too."""

    delays: list[float]
    reads: int
    reads_in_window: int
    window: float
    load: Load


def run(tasks: int) -> list[Row]:
    """With polls alone, then with events through an SQS stand-in of the benchmarks (`bench.sqs`)."""
    polled, told = measure(tasks, WINDOW, by_events=False), measure(tasks, WINDOW, by_events=True)
    soon = sum(delay <= _SOON for delay in polled.delays) / tasks
    share = polled.reads_in_window / (DESCRIBE_RATE * polled.window)
    return [
        Row(f"{tasks} tasks end in {WINDOW:g} s; by polls: told within {_SOON:g} s", f"{soon:.1%}", ">= 95%"),
        Row("  share of the describe quota used", f"{share:.0%}", "<= 50%"),
        Row("  stop to result, p50", f"{quantile(polled.delays, 0.5):.1f} s"),
        Row("  stop to result, p99", f"{quantile(polled.delays, 0.99):.1f} s"),
        *_costs(polled, tasks),
        Row("  by events (SQS stand-in): stop to result, p50", f"{quantile(told.delays, 0.5) * 1000:.0f} ms"),
        Row("  stop to result, p99", f"{quantile(told.delays, 0.99) * 1000:.0f} ms", "<= 1000 ms"),
        *_costs(told, tasks, "< 0.05"),
    ]


def _costs(found: Found, tasks: int, aim: str = "") -> list[Row]:
    return [
        Row("  DescribeTasks and ListTasks calls a finished task", f"{found.reads / tasks:.4f}", aim),
        Row("  of a core meanwhile: worker, Redis, whole machine", found.load.shown()),
    ]


def measure(tasks: int, window: float, *, by_events: bool) -> Found:
    """Launch them, let them end within `window` seconds, one after the other, and wait for all results."""
    with ExitStack() as open_parts:
        parts = open_parts.enter_context(following(by_events=by_events))
        client = open_parts.enter_context(parts.client())
        return _follow(parts, client, tasks, window)


def _follow(parts: Stack, client: EcsQueue, tasks: int, window: float) -> Found:
    begin = time.time() + tasks / _LAUNCHES + _SPARE
    handles: list[Handle] = []
    for first in range(0, tasks, _AT_ONCE):
        numbers = range(first, min(tasks, first + _AT_ONCE))
        ends = (begin + window * number / tasks for number in numbers)
        handles += client.submit_many({"command": ["until", repr(end)]} for end in ends)
    counts = client.ledger.counts
    until(lambda: counts().get("default", {}).get(State.LAUNCHED, 0) >= tasks, begin - time.time(), every=0.2)
    time.sleep(max(0.0, begin - time.time()))
    before, meter = _reads(parts), parts.meter()
    delays = []
    for result in client.as_completed(handles, timeout=window + 300):
        assert isinstance(result.finished_at, datetime.datetime)
        delays.append(time.time() - result.finished_at.timestamp())
    reads, load = _reads(parts), meter.load()
    return Found(delays, reads, reads - before, time.time() - begin, load)


def _reads(parts: Stack) -> int:
    calls, _ = parts.calls()
    return calls["DescribeTasks"] + calls["ListTasks"]
