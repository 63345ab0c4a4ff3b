"""Launches against AWS's quota: how close to it the workers come together, and what is throttled on the way."""

from __future__ import annotations

from bench.row import Row
from bench.stack import Stack, stack, until
from ecs_queue.core.states import State

RATE, BURST = 20, 100
LATENCY = 0.05


def run(tasks: int) -> list[Row]:
    """With 1, 2 and 4 workers."""
    return [row for workers in (1, 2, 4) for row in _rows(tasks, workers)]


def _rows(tasks: int, workers: int) -> list[Row]:
    ideal = max(0, tasks - BURST) / RATE
    quota = ("--launch-quota", str(RATE), str(BURST))
    with stack(LATENCY, workers, quota, paused=True, run_task_rate=str(RATE), run_task_burst=str(BURST)) as parts:
        seconds = _launch(parts, tasks)
        calls, throttled = parts.calls()
    share = throttled["RunTask"] / calls["RunTask"]
    name = f"{tasks} tasks at {RATE}/s, burst {BURST}, {workers} worker{'s' if workers > 1 else ''}"
    return [
        Row(name, f"{seconds:.2f} s", f"<= {1.05 * ideal:.2f} s", ideal / seconds if seconds else None),
        Row("  RunTask calls throttled", f"{share:.2%} of {calls['RunTask']}", "<= 1%"),
    ]


def _launch(parts: Stack, tasks: int) -> float:
    """Seconds from the first launch to the last: the backlog stands before the workers are let at it."""
    with parts.client() as client:
        handles = client.submit_many({"command": ["sleep", "3600"]} for _ in range(tasks))
        client.ledger.resume(["default"])
        counts = client.ledger.counts
        until(lambda: counts().get("default", {}).get(State.LAUNCHED, 0) >= tasks, 300, every=0.2)
        records = client.ledger.get([handle.id for handle in handles])
    times = [record.launched_at for record in records if record]
    return max(times) - min(times)
