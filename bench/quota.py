"""Launches at AWS's quota: how close the workers come to it together, and how many calls are throttled."""

from __future__ import annotations

from bench.measurement import Measurement
from bench.stack import Stack, running_stack, wait_until
from ecs_queue.protocol.states import State

RATE, BURST = 20, 100
ECS_LATENCY = 0.05


def run(tasks: int) -> list[Measurement]:
    """Measure 1, 2 and 4 workers."""
    return [row for workers in (1, 2, 4) for row in _measure(tasks, workers)]


def _measure(tasks: int, workers: int) -> list[Measurement]:
    ideal = max(0, tasks - BURST) / RATE
    quota = ("--launch-quota", str(RATE), str(BURST))
    with running_stack(
        ECS_LATENCY, workers, quota, paused=True, run_task_rate=str(RATE), run_task_burst=str(BURST)
    ) as parts:
        seconds = _launch_seconds(parts, tasks)
        calls, throttled = parts.call_counts()
    share = throttled["RunTask"] / calls["RunTask"]
    name = f"{tasks} tasks at {RATE}/s, burst {BURST}, {workers} worker{'s' if workers > 1 else ''}"
    return [
        Measurement(name, f"{seconds:.2f} s", f"<= {1.05 * ideal:.2f} s", ideal / seconds if seconds else None),
        Measurement("  RunTask calls throttled", f"{share:.2%} of {calls['RunTask']}", "<= 1%"),
    ]


def _launch_seconds(parts: Stack, tasks: int) -> float:
    """Seconds from the first launch to the last of a backlog that is there before the queue is resumed."""
    with parts.client() as client:
        handles = client.submit_many({"command": ["sleep", "3600"]} for _ in range(tasks))
        client.ledger.resume_queues(["default"])
        counts = client.ledger.count_by_state
        wait_until(lambda: counts().get("default", {}).get(State.LAUNCHED, 0) >= tasks, 300, interval=0.2)
        records = client.ledger.get([handle.id for handle in handles])
    times = [record.launched_at for record in records if record]
    return max(times) - min(times)
