"""Carries out what a look at a task means: the one path from a poll or an event to the ledger and to the owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecs_queue.core.decide import Look, Step, judge
from ecs_queue.core.plan import decode_head
from ecs_queue.core.protocol import Answer, Outcome, Word
from ecs_queue.core.record import Record
from ecs_queue.core.retry import Backoff, Draw
from ecs_queue.core.tasks import EcsExecutorTask
from ecs_queue.core.verdict import Observation
from ecs_queue.crashpoints import reach
from ecs_queue.ecs.clients import Target
from ecs_queue.launcher.ends import tell_end, tell_step
from ecs_queue.launcher.parts import Parts
from ecs_queue.launcher.slots import Slots
from ecs_queue.launcher.stops import StopOrders


class Judge:
    """Thread-safe. Records are as the ledger gave them; it has the last word on what is news."""

    def __init__(self, parts: Parts, slots: Slots) -> None:
        self._parts = parts
        self._stops = StopOrders(parts, slots)
        self._backoff = Backoff(parts.config.retry_base_seconds, parts.config.retry_cap_seconds)

    def polled(self, target: Target, record: Record, task: Mapping[str, Any], now: float) -> Outcome | float:
        """News for the ledger, or in how many seconds to look again: of a task as DescribeTasks shows it."""
        found, seen = self._judge(target, record, task, now)
        self._parts.pace.polled(record, seen, now)
        return found

    def told(self, target: Target, record: Record, task: Mapping[str, Any], now: float) -> Outcome | float:
        """The same of a task as an event shows it."""
        return self._judge(target, record, task, now)[0]

    def _judge(
        self, target: Target, record: Record, task: Mapping[str, Any], now: float
    ) -> tuple[Outcome | float, Observation]:
        parts = self._parts
        head = decode_head(record.args)
        look = Look(
            record=record,
            task=task,
            container=head.container,
            max_attempts=head.max_attempts,
            now=now,
            in_flight=parts.pace.in_flight,
            rate=parts.config.describe_tasks_rate,
            backoff=self._backoff,
            flow=parts.pace.trusted_flow(record),
        )
        draw = Draw(parts.rng)
        found = judge(look, draw)
        if found.news or found.stop:  # else it is one of many looks that showed nothing new
            told = {"id": record.id, "arn": record.arn, "status": found.seen.last_status}
            parts.telemetry.emit("decision.look", **told, look=look, draw=draw.value, took=found)
        if found.stop:
            self._stop(target, record, found.stop)
        if found.outcome is None:
            return found.wait, found.seen
        parts.in_flight.update(record.id, EcsExecutorTask.from_boto(task))
        return found.outcome, found.seen

    def tell(self, record: Record, outcome: Outcome, answer: Answer) -> None:
        """What the ledger has made of an outcome."""
        parts = self._parts
        step = tell_step(parts.telemetry, "outcome", record.id, answer.word)
        if answer.word is Word.OK:
            parts.telemetry.emit("task.status", id=record.id, arn=record.arn, status=outcome.last_status)
            return
        parts.in_flight.drop(record.id)
        if step is Step.RETRY:
            parts.telemetry.emit("task.retry", id=record.id, attempt=record.attempt + 1, reason=outcome.reason)
        elif step is Step.END and answer.record is not None:
            tell_end(parts.telemetry, answer.record)
            parts.publish(answer.record)

    def forget_old(self) -> None:
        """Drop what is over."""
        self._stops.forget_old()

    def _stop(self, target: Target, record: Record, why: str) -> None:
        """Mark what was not marked yet, then order the stop; seen again at the next look, it is ordered again."""
        if not record.stop_by:
            answer = self._parts.ledger.stop([record.id], why, record.launch)[0]
            reach("track.stop_marked")
            if answer.word is not Word.MARKED:
                return
        self._stops.order(target, record, why)
