"""Carries out what a look at a task means: the one path from a poll or an event to the ledger and to the owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import Target
from ecs_queue.protocol.decisions import NextAction, PollInput, decide_poll
from ecs_queue.protocol.observation import Observation
from ecs_queue.protocol.operations import OperationResult, ResultCode, TaskUpdate
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.retry import Backoff, RecordedDraw
from ecs_queue.runtask.launch_spec import launch_spec_header
from ecs_queue.tasks import EcsExecutorTask
from ecs_queue.worker.completion import decide_next_action, emit_request_ended
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.task_stopper import TaskStopper
from ecs_queue.worker.thread_pool import LaunchThreadPool


class Reconciler:
    """Thread-safe. Records are as the ledger gave them; it has the last word on what is news."""

    def __init__(self, context: WorkerContext, thread_pool: LaunchThreadPool) -> None:
        self._context = context
        self._task_stopper = TaskStopper(context, thread_pool)
        self._backoff = Backoff(context.config.retry_base_seconds, context.config.retry_cap_seconds)

    def reconcile_poll(self, target: Target, record: Record, task: Mapping[str, Any], now: float) -> TaskUpdate | float:
        """News for the ledger, or in how many seconds to look again: of a task as DescribeTasks shows it."""
        found, seen = self._reconcile(target, record, task, now)
        self._context.poll_schedule.note_poll(record, seen, now)
        return found

    def reconcile_event(
        self, target: Target, record: Record, task: Mapping[str, Any], now: float
    ) -> TaskUpdate | float:
        """The same of a task as an event shows it."""
        return self._reconcile(target, record, task, now)[0]

    def _reconcile(
        self, target: Target, record: Record, task: Mapping[str, Any], now: float
    ) -> tuple[TaskUpdate | float, Observation]:
        parts = self._context
        head = launch_spec_header(record)
        look = PollInput(
            record=record,
            task=task,
            container_name=head.container_name,
            max_attempts=head.max_attempts,
            now=now,
            in_flight=parts.poll_schedule.in_flight,
            describe_tasks_rate=parts.config.describe_tasks_rate,
            backoff=self._backoff,
            event_health=parts.poll_schedule.trusted_event_health(record),
        )
        draw = RecordedDraw(parts.rng)
        found = decide_poll(look, draw)
        if found.is_new or found.stop_cause:  # else it is one of many looks that showed nothing new
            told = {"id": record.id, "arn": record.arn, "status": found.observation.last_status}
            parts.telemetry.emit("decision.poll", **told, poll_input=look, draw=draw.value, decision=found)
        if found.stop_cause:
            self._stop(target, record, found.stop_cause)
        if found.update is None:
            return found.wait, found.observation
        parts.in_flight.update(record.id, EcsExecutorTask.from_boto(task))
        return found.update, found.observation

    def handle_outcome_result(self, record: Record, outcome: TaskUpdate, result: OperationResult) -> None:
        """What the ledger has made of an outcome."""
        parts = self._context
        step = decide_next_action(parts.telemetry, "update_task", record.id, result.code)
        if result.code is ResultCode.OK:
            parts.telemetry.emit("task.status_changed", id=record.id, arn=record.arn, status=outcome.last_status)
            return
        parts.in_flight.drop(record.id)
        if step is NextAction.AWAIT_RELAUNCH:
            parts.telemetry.emit(
                "request.retry_scheduled", id=record.id, attempt=record.attempt + 1, reason=outcome.reason
            )
        elif step is NextAction.PUBLISH_RESULT and result.record is not None:
            emit_request_ended(parts.telemetry, result.record)
            parts.publish_result(result.record)

    def forget_old(self) -> None:
        """Drop what is over."""
        self._task_stopper.forget_old()

    def _stop(self, target: Target, record: Record, stop_by: str) -> None:
        """Mark what was not marked yet, then order the stop; seen again at the next look, it is ordered again."""
        if not record.stop_requested_by:
            answer = self._context.ledger.stop([record.id], stop_by, record.launch)[0]
            crash_point("reconciler.stop_marked")
            if answer.code is not ResultCode.STOP_REQUESTED:
                return
        self._task_stopper.request_stop(target, record, stop_by)
