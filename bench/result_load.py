"""The latency from a task's stop to its delivered result under a high load, by polls and by events, and its cost."""

from __future__ import annotations

import datetime
import time
from typing import NamedTuple

from bench.measurement import Measurement
from bench.stack import DESCRIBE_RATE, CpuLoad, Stack, quantile, tracking_stack, wait_until
from ecs_queue.client.client import EcsQueue
from ecs_queue.client.handle import Handle
from ecs_queue.protocol.states import State

#: All tasks end within this time. Seconds.
END_WINDOW = 60.0
#: Time for the launches: a minimum rate in tasks per second, and additional seconds.
_LAUNCHES_PER_SECOND, _LAUNCH_MARGIN = 100, 15.0
_TARGET_DELAY = 12.0
_SUBMIT_BATCH = 1000


class ResultFigures(NamedTuple):
    """The figures of one run.

    Attributes:
        delays: seconds from stop to delivery.
        reads, reads_in_window: DescribeTasks and ListTasks calls, in all and within the window.
        window_seconds, load: the length of the window in which tasks end, and the CPU load in it.
    """

    delays: list[float]
    reads: int
    reads_in_window: int
    window_seconds: float
    load: CpuLoad


def run(tasks: int) -> list[Measurement]:
    """Measure with polls alone, then with events through `bench.fake_sqs`."""
    polled, notified = measure(tasks, END_WINDOW, by_events=False), measure(tasks, END_WINDOW, by_events=True)
    in_time = sum(delay <= _TARGET_DELAY for delay in polled.delays) / tasks
    share = polled.reads_in_window / (DESCRIBE_RATE * polled.window_seconds)
    return [
        Measurement(
            f"{tasks} tasks end in {END_WINDOW:g} s; by polls: delivered within {_TARGET_DELAY:g} s",
            f"{in_time:.1%}",
            ">= 95%",
        ),
        Measurement("  share of the describe quota used", f"{share:.0%}", "<= 50%"),
        Measurement("  stop to result, p50", f"{quantile(polled.delays, 0.5):.1f} s"),
        Measurement("  stop to result, p99", f"{quantile(polled.delays, 0.99):.1f} s"),
        *_cost_measurements(polled, tasks),
        Measurement("  by events (fake SQS): stop to result, p50", f"{quantile(notified.delays, 0.5) * 1000:.0f} ms"),
        Measurement("  stop to result, p99", f"{quantile(notified.delays, 0.99) * 1000:.0f} ms", "<= 1000 ms"),
        *_cost_measurements(notified, tasks, "< 0.05"),
    ]


def _cost_measurements(found: ResultFigures, tasks: int, target: str = "") -> list[Measurement]:
    return [
        Measurement("  DescribeTasks and ListTasks calls per finished task", f"{found.reads / tasks:.4f}", target),
        Measurement("  CPU share: worker, Redis, whole machine", found.load.format()),
    ]


def measure(tasks: int, window: float, *, by_events: bool) -> ResultFigures:
    """Launch the tasks, let them end one after the other within `window` seconds, and wait for all results."""
    with tracking_stack(by_events=by_events) as parts, parts.client() as client:
        return _run_until_results(parts, client, tasks, window)


def _run_until_results(parts: Stack, client: EcsQueue, tasks: int, window: float) -> ResultFigures:
    begin = time.time() + tasks / _LAUNCHES_PER_SECOND + _LAUNCH_MARGIN
    handles: list[Handle] = []
    for first in range(0, tasks, _SUBMIT_BATCH):
        numbers = range(first, min(tasks, first + _SUBMIT_BATCH))
        ends = (begin + window * number / tasks for number in numbers)
        handles += client.submit_many({"command": ["until", repr(end)]} for end in ends)
    counts = client.ledger.count_by_state
    wait_until(lambda: counts().get("default", {}).get(State.LAUNCHED, 0) >= tasks, begin - time.time(), interval=0.2)
    time.sleep(max(0.0, begin - time.time()))
    before, meter = _read_call_count(parts), parts.meter()
    delays = []
    for result in client.as_completed(handles, timeout=window + 300):
        assert isinstance(result.finished_at, datetime.datetime)
        delays.append(time.time() - result.finished_at.timestamp())
    reads, load = _read_call_count(parts), meter.load()
    return ResultFigures(delays, reads, reads - before, time.time() - begin, load)


def _read_call_count(parts: Stack) -> int:
    calls, _ = parts.call_counts()
    return calls["DescribeTasks"] + calls["ListTasks"]
