"""Carries out what an observation of a task means: the one path from a poll or an event to the ledger and the owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ecs_queue.crash_points import crash_point
from ecs_queue.ecs.clients import Target
from ecs_queue.protocol.capacity_fallback import event_of_end
from ecs_queue.protocol.decisions import NextAction, PollInput, decide_poll
from ecs_queue.protocol.observation import Observation
from ecs_queue.protocol.operations import OperationResult, ResultCode, TaskUpdate
from ecs_queue.protocol.record import STOPPED_BY_START_TIMEOUT, Record
from ecs_queue.protocol.retry import RecordedDraw
from ecs_queue.runtask.launch_spec import launch_spec_header
from ecs_queue.worker.completion import Completion
from ecs_queue.worker.context import WorkerContext
from ecs_queue.worker.task_stopper import TaskStopper


class Reconciler:
    """Compares records with what ECS shows. Thread-safe; the ledger decides whether an update is newer."""

    def __init__(self, context: WorkerContext, task_stopper: TaskStopper) -> None:
        self._context = context
        self._task_stopper = task_stopper
        self._completion = Completion(context)

    def reconcile(
        self, target: Target, record: Record, task: Mapping[str, Any], now: float
    ) -> tuple[TaskUpdate | float, Observation]:
        """Order a stop where one is due, and decide what the ledger has to know.

        Args:
            task: As DescribeTasks or an event shows it.
            now: The ledger's clock.

        Returns:
            The update for the ledger, or without one the seconds until the next poll; and the observation.

        Raises:
            UndecodableMessage: the record's arguments are of another version, so other workers follow its task.
        """
        context = self._context
        header = launch_spec_header(record)
        poll_input = PollInput(
            record=record,
            task=task,
            container_name=header.container_name,
            max_attempts=header.max_attempts,
            now=now,
            in_flight=context.poll_schedule.in_flight,
            describe_tasks_rate=context.config.describe_tasks_rate,
            backoff=context.backoff,
            # The events of a runner's task are those of the request that started it.
            event_health=None if record.run else context.poll_schedule.trusted_event_health(record),
        )
        draw = RecordedDraw(context.rng)
        decision = decide_poll(poll_input, draw)
        observation = decision.observation
        if decision.is_new or decision.stop_cause:  # else it is one of many polls that showed nothing new
            fields = {"id": record.id, "arn": record.arn, "status": observation.last_status}
            inputs = {"poll_input": poll_input, "draw": draw.value}
            context.telemetry.emit("decision.poll", **fields, **inputs, decision=decision)
        if decision.update is not None:
            context.capacity_fallback.report(record, event_of_end(observation), observation.reason)
        if decision.stop_cause:
            self._stop(target, record, decision.stop_cause)
        return decision.wait if decision.update is None else decision.update, observation

    def write_updates(self, records: Mapping[str, Record], updates: Sequence[TaskUpdate]) -> list[OperationResult]:
        """Write updates to the ledger, those of runners' tasks apart; return their results in order."""
        ledger = self._context.ledger
        of_runners = [update for update in updates if records[update.id].run]
        others = [update for update in updates if not records[update.id].run]
        written = ledger.update_runner_tasks(of_runners) if of_runners else []
        results = dict(zip(map(id, of_runners), written, strict=True))
        crash_point("reconciler.runner_tasks_written")
        results |= zip(map(id, others), ledger.update_tasks(others) if others else [], strict=True)
        return [results[id(update)] for update in updates]

    def handle_update_result(self, record: Record, update: TaskUpdate, result: OperationResult) -> None:
        """Report what the ledger made of an update; publish the result when the record has ended."""
        context = self._context
        action = context.decide_next_action("update_task", record.id, result.code)
        if result.code is ResultCode.OK:
            context.telemetry.emit("task.status_changed", id=record.id, arn=record.arn, status=update.last_status)
        elif action is NextAction.AWAIT_RELAUNCH:
            attempt = record.attempt + 1
            context.telemetry.emit("request.retry_scheduled", id=record.id, attempt=attempt, reason=update.reason)
        elif action is NextAction.PUBLISH_RESULT and result.record is not None:
            self._completion.complete(result.record)

    def _stop(self, target: Target, record: Record, stop_by: str) -> None:
        """Mark a stop that is not marked yet, then order it; the next poll that shows the task running repeats it."""
        # A start timeout ends a launch and not its request: nothing is marked, ECS shows why the task was stopped.
        if not record.stop_requested_by and stop_by != STOPPED_BY_START_TIMEOUT:
            result = self._context.ledger.stop([record.id], stop_by, record.launch)[0]
            crash_point("reconciler.stop_marked")
            if result.code is not ResultCode.STOP_REQUESTED:
                return
        self._task_stopper.request_stop(target, record, stop_by)
