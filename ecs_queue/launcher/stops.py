"""Orders ECS to stop tasks: at most one order a task on its way, and no more of them than there is room for."""

from __future__ import annotations

import threading
from functools import partial

from ecs_queue.core.answers import StopKind
from ecs_queue.core.record import Record
from ecs_queue.crashpoints import reach
from ecs_queue.ecs.clients import Target
from ecs_queue.launcher.lanes import NO_QUEUE, Job, JobKind
from ecs_queue.launcher.parts import Parts
from ecs_queue.launcher.slots import Slots

#: Seconds until a task that still runs is ordered to stop again: after an order that ECS took, one that did not reach
#: it, and one that somebody has to put right first (rights, credentials).
_AGAIN, _AFTER_NO_ANSWER, _AFTER_A_NO = 5.0, 2.0, 30.0


class StopOrders:
    """Thread-safe. What finds no room is ordered at the next look at the task."""

    def __init__(self, parts: Parts, slots: Slots) -> None:
        self._parts = parts
        self._slots = slots
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}  # ARN -> when it may be ordered again; infinity while an order is on its way

    def order(self, target: Target, record: Record, why: str) -> None:
        """Stop the record's task, soon. StopTask shares its quota with RunTask, and goes before it."""
        with self._lock:
            if self._next.get(record.arn, 0.0) > self._parts.monotonic():
                return
            if not self._slots.room(NO_QUEUE, JobKind.STOP):
                return
            self._next[record.arn] = float("inf")
        self._parts.telemetry.emit("task.stop", id=record.id, arn=record.arn, by=why)
        carry_out = partial(self._carry_out, target, record, why)
        self._slots.submit(Job(carry_out, JobKind.STOP, permit=self._parts.stop_quota.permit(target)))

    def forget_old(self) -> None:
        """Drop what is over: most of the tasks have stopped."""
        now = self._parts.monotonic()
        with self._lock:
            for arn in [arn for arn, at in self._next.items() if at <= now]:
                del self._next[arn]

    def _carry_out(self, target: Target, record: Record, why: str) -> None:
        again = _AFTER_NO_ANSWER
        try:
            again = self._stop(target, record, why)
        finally:
            with self._lock:
                self._next[record.arn] = self._parts.monotonic() + again

    def _stop(self, target: Target, record: Record, why: str) -> float:
        reach("stop.ordering")
        answer = self._parts.gateway.stop_task(target, record.arn, f"ecs-queue: stopped by {why}")
        reach("stop.ordered")
        self._parts.telemetry.emit("stop.answered", id=record.id, arn=record.arn, answer=answer.kind.value)
        if answer.kind in (StopKind.OK, StopKind.GONE):
            return _AGAIN
        if answer.kind is StopKind.THROTTLED:
            self._parts.stop_quota.throttled(target)
        self._parts.telemetry.emit("stop.trouble", id=record.id, arn=record.arn, reason=answer.reason)
        return _AFTER_NO_ANSWER if answer.kind in (StopKind.THROTTLED, StopKind.UNAVAILABLE) else _AFTER_A_NO
