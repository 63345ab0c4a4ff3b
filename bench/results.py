"""From a task's stop to its delivered result, by polls and by events: how late, and at the cost of which calls."""

from __future__ import annotations

import datetime
import time
from contextlib import ExitStack
from typing import NamedTuple

from bench.row import Row
from bench.stack import Stack, quantile, serve, stack, until
from ecs_queue.client import EcsQueue, Handle
from ecs_queue.core.states import State

#: AWS's quota of DescribeTasks and ListTasks.
RATE, BURST = 20, 100
#: All tasks end within so long. Seconds.
WINDOW = 60.0
#: How long the launches may take, at the slowest. Tasks a second, and seconds on top.
_LAUNCHES, _SPARE = 60, 15.0
_SOON = 12.0
_AT_ONCE = 1000


class Found(NamedTuple):
    """`delays`: seconds from stop to delivery. `reads`: DescribeTasks and ListTasks calls, and within the window."""

    delays: list[float]
    reads: int
    reads_in_window: int
    window: float


def run(tasks: int) -> list[Row]:
    """With polls alone, then with events through an SQS stand-in of the benchmarks (`bench.sqs`)."""
    polled, told = _measure(tasks, by_events=False), _measure(tasks, by_events=True)
    soon = sum(delay <= _SOON for delay in polled.delays) / tasks
    share = polled.reads_in_window / (RATE * polled.window)
    return [
        Row(f"{tasks} tasks end in {WINDOW:g} s; by polls: told within {_SOON:g} s", f"{soon:.1%}", ">= 95%"),
        Row("  share of the describe quota used", f"{share:.0%}", "<= 50%"),
        Row("  stop to result, p50", f"{quantile(polled.delays, 0.5):.1f} s"),
        Row("  stop to result, p99", f"{quantile(polled.delays, 0.99):.1f} s"),
        Row("  by events (SQS stand-in): stop to result, p50", f"{quantile(told.delays, 0.5) * 1000:.0f} ms"),
        Row("  stop to result, p99", f"{quantile(told.delays, 0.99) * 1000:.0f} ms", "<= 1000 ms"),
        Row("  DescribeTasks and ListTasks calls a finished task", f"{told.reads / tasks:.4f}", "< 0.05"),
        Row("  by polls", f"{polled.reads / tasks:.4f}"),
    ]


def _measure(tasks: int, *, by_events: bool) -> Found:
    options = ["--describe-quota", str(RATE), str(BURST)]
    with ExitStack() as open_parts:
        url = serve(open_parts, "bench.sqs") if by_events else ""
        options += ["--events-to", url] if url else []
        quota = {"describe_tasks_rate": str(RATE), "describe_tasks_burst": str(BURST)}
        parts = open_parts.enter_context(stack(0.0, 1, options, event_queue_url=url, **quota))
        with parts.client() as client:
            return _follow(parts, client, tasks)


def _follow(parts: Stack, client: EcsQueue, tasks: int) -> Found:
    begin = time.time() + tasks / _LAUNCHES + _SPARE
    handles: list[Handle] = []
    for first in range(0, tasks, _AT_ONCE):
        numbers = range(first, min(tasks, first + _AT_ONCE))
        ends = (begin + WINDOW * number / tasks for number in numbers)
        handles += client.submit_many({"command": ["until", repr(end)]} for end in ends)
    counts = client.ledger.counts
    until(lambda: counts().get("default", {}).get(State.LAUNCHED, 0) >= tasks, begin - time.time(), every=0.2)
    time.sleep(max(0.0, begin - time.time()))
    before = _reads(parts)
    delays = []
    for result in client.as_completed(handles, timeout=WINDOW + 300):
        assert isinstance(result.finished_at, datetime.datetime)
        delays.append(time.time() - result.finished_at.timestamp())
    reads = _reads(parts)
    return Found(delays, reads, reads - before, time.time() - begin)


def _reads(parts: Stack) -> int:
    calls, _ = parts.calls()
    return calls["DescribeTasks"] + calls["ListTasks"]
