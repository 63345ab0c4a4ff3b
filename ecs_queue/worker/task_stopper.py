"""Orders ECS to stop tasks: at most one StopTask per task at a time, and no more than the thread pool has room for."""

from __future__ import annotations

import math
import threading
from functools import partial

from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import Target
from ecs_queue.protocol.ecs_results import EcsErrorKind
from ecs_queue.protocol.observation import STOP_TASK_REASON
from ecs_queue.protocol.record import Record
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.fair_queue import NO_QUEUE, Job, JobKind
from ecs_queue.worker.thread_pool import LaunchThreadPool

#: Time until a task that still runs is ordered to stop again: after an order that ECS took, one that did not reach it,
#: and one that an operator has to put right first (permissions, credentials). Seconds.
_REPEAT_DELAY, _UNAVAILABLE_DELAY, _REFUSED_DELAY = 5.0, 2.0, 30.0


class TaskStopper:
    """Thread-safe. A stop for which there is no room is ordered at the next poll of the task."""

    def __init__(self, context: WorkerContext, thread_pool: LaunchThreadPool) -> None:
        self._context = context
        self._thread_pool = thread_pool
        self._lock = threading.Lock()
        #: ARN -> when it may be ordered again; infinity while an order is under way.
        self._next_stop_at: dict[str, float] = {}

    def request_stop(self, target: Target, record: Record, stop_by: str) -> None:
        """Stop the record's task soon. StopTask shares its rate limit with RunTask, and goes before it."""
        with self._lock:
            if self._next_stop_at.get(record.arn, 0.0) > self._context.monotonic():
                return
            if not self._thread_pool.remaining_capacity(NO_QUEUE, JobKind.STOP):
                return
            self._next_stop_at[record.arn] = math.inf
        self._context.telemetry.emit("task.stopping", id=record.id, arn=record.arn, by=stop_by)
        stop = partial(self._stop_and_reschedule, target, record, stop_by)
        rate_limit = self._context.stop_task_limiter.limit_for(target)
        self._thread_pool.submit(Job(stop, JobKind.STOP, rate_limit=rate_limit))

    def forget_old(self) -> None:
        """Drop tasks that may be ordered again: most of them have stopped."""
        now = self._context.monotonic()
        with self._lock:
            self._next_stop_at = {arn: at for arn, at in self._next_stop_at.items() if at > now}

    def _stop_and_reschedule(self, target: Target, record: Record, stop_by: str) -> None:
        delay = _UNAVAILABLE_DELAY
        try:
            delay = self._call_stop_task(target, record, stop_by)
        finally:
            with self._lock:
                self._next_stop_at[record.arn] = self._context.monotonic() + delay

    def _call_stop_task(self, target: Target, record: Record, stop_by: str) -> float:
        context = self._context
        crash_point("task_stopper.calling")
        error = context.gateway.stop_task(target, record.arn, STOP_TASK_REASON % stop_by).error
        crash_point("task_stopper.call_returned")
        result = error.kind.value if error else "ok"
        context.telemetry.emit("stop_task.answered", id=record.id, arn=record.arn, result=result)
        if error is None or error.kind is EcsErrorKind.TASK_NOT_FOUND:
            return _REPEAT_DELAY
        if error.kind is EcsErrorKind.THROTTLED:
            context.stop_task_limiter.report_throttled(target)
        context.telemetry.emit("stop_task.failed", id=record.id, arn=record.arn, reason=error.reason)
        is_transient = error.kind in (EcsErrorKind.THROTTLED, EcsErrorKind.UNAVAILABLE)
        return _UNAVAILABLE_DELAY if is_transient else _REFUSED_DELAY
