"""Orders ECS to stop tasks: at most one order a task on its way, and no more of them than there is room for."""

from __future__ import annotations

import threading
from functools import partial

from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import Target
from ecs_queue.protocol.ecs_results import EcsErrorKind
from ecs_queue.protocol.record import Record
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.fair_queue import NO_QUEUE, Job, JobKind
from ecs_queue.worker.thread_pool import LaunchThreadPool

#: Seconds until a task that still runs is ordered to stop again: after an order that ECS took, one that did not reach
#: it, and one that somebody has to put right first (rights, credentials).
_REPEAT_DELAY, _UNAVAILABLE_DELAY, _REFUSED_DELAY = 5.0, 2.0, 30.0


class TaskStopper:
    """Thread-safe. What finds no room is ordered at the next look at the task."""

    def __init__(self, context: WorkerContext, thread_pool: LaunchThreadPool) -> None:
        self._context = context
        self._thread_pool = thread_pool
        self._lock = threading.Lock()
        self._next_stop_at: dict[
            str, float
        ] = {}  # ARN -> when it may be ordered again; infinity while an order is on its way

    def request_stop(self, target: Target, record: Record, stop_by: str) -> None:
        """Stop the record's task, soon. StopTask shares its quota with RunTask, and goes before it."""
        with self._lock:
            if self._next_stop_at.get(record.arn, 0.0) > self._context.monotonic():
                return
            if not self._thread_pool.remaining_capacity(NO_QUEUE, JobKind.STOP):
                return
            self._next_stop_at[record.arn] = float("inf")
        self._context.telemetry.emit("task.stopping", id=record.id, arn=record.arn, by=stop_by)
        carry_out = partial(self._stop_and_reschedule, target, record, stop_by)
        self._thread_pool.submit(
            Job(carry_out, JobKind.STOP, rate_limit=self._context.stop_task_limiter.limit_for(target))
        )

    def forget_old(self) -> None:
        """Drop what is over: most of the tasks have stopped."""
        now = self._context.monotonic()
        with self._lock:
            for arn in [arn for arn, at in self._next_stop_at.items() if at <= now]:
                del self._next_stop_at[arn]

    def _stop_and_reschedule(self, target: Target, record: Record, stop_by: str) -> None:
        again = _UNAVAILABLE_DELAY
        try:
            again = self._call_stop_task(target, record, stop_by)
        finally:
            with self._lock:
                self._next_stop_at[record.arn] = self._context.monotonic() + again

    def _call_stop_task(self, target: Target, record: Record, stop_by: str) -> float:
        crash_point("task_stopper.calling")
        error = self._context.gateway.stop_task(target, record.arn, f"ecs-queue: stopped by {stop_by}").error
        crash_point("task_stopper.answered")
        result = error.kind.value if error else "ok"
        self._context.telemetry.emit("stop_task.answered", id=record.id, arn=record.arn, result=result)
        if error is None or error.kind is EcsErrorKind.TASK_NOT_FOUND:
            return _REPEAT_DELAY
        if error.kind is EcsErrorKind.THROTTLED:
            self._context.stop_task_limiter.report_throttled(target)
        self._context.telemetry.emit("stop_task.failed", id=record.id, arn=record.arn, reason=error.reason)
        is_transient = error.kind in (EcsErrorKind.THROTTLED, EcsErrorKind.UNAVAILABLE)
        return _UNAVAILABLE_DELAY if is_transient else _REFUSED_DELAY
