"""One request's timeline: every launch with its phases, from the journal's events, or from the record alone.

Pure. Times are seconds since the epoch: by the ledger's server for ecs-queue's actions, by ECS for a task's. The two
clocks differ a little, so a phase never begins before the previous one has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ecs_queue.journal.base import MAX_TIME, JournalEvent
from ecs_queue.protocol.observation import parse_timestamp
from ecs_queue.protocol.phases import TASK_TIME_KEYS, Phase, build_phases, phase_starts
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State


class LaunchTimeline(msgspec.Struct, kw_only=True):
    """One launch number.

    Attributes:
        run_task_calls: number of RunTask calls.
        result: how the launch ended; "" while it lasts.
        exit_code, reason: those of the end of this launch, also when another launch followed.
        ended_at: None while it lasts.
    """

    launch: int
    attempt: int
    worker: str = ""
    arn: str = ""
    run_task_calls: int = 0
    phases: list[Phase] = []
    result: str = ""
    reason: str = ""
    exit_code: int | None = None
    ended_at: float | None = None


class Timeline(msgspec.Struct, kw_only=True):
    """A request's launches.

    Attributes:
        end: None while the request lasts.
        is_complete: the journal has every launch; otherwise there may have been more than `launches`.
        unused_events: events whose fields have other types than those of the catalogue; they are left out.
        unverified_events: events that no signing key verifies. The timeline shows them like the others.
    """

    id: str
    start: float
    end: float | None = None
    launches: list[LaunchTimeline] = []
    is_complete: bool = False
    unused_events: int = 0
    unverified_events: int = 0


def build_timeline(record: Record | None, events: Iterable[JournalEvent], record_id: str) -> Timeline | None:
    """Return the timeline of a request; None when neither the ledger nor the journal knows it.

    Args:
        record: the ledger's record; None if there is none (any more).
        events: the request's events in the order of their time. If the id was used several times, only the last use
            counts.
        record_id: the request's id.
    """
    builder = _TimelineBuilder(record_id)
    unused = unverified = 0
    for event in events:
        if event.name == "request.submitted" and builder.ended_at is not None:
            builder = _TimelineBuilder(record_id)  # the id was used again: earlier events are of another request
        try:
            builder.add_event(event)
        except (TypeError, ValueError, OverflowError):
            unused += 1
        unverified += event.verified is False
    timeline = builder.build(record)
    if timeline is None:
        return None
    return msgspec.structs.replace(timeline, unused_events=unused, unverified_events=unverified)


class _LaunchBuilder:
    """What is known of one launch."""

    def __init__(self, launch: int, attempt: int, since: float) -> None:
        self.timeline = LaunchTimeline(launch=launch, attempt=attempt)
        self.since = since
        self.called_at = 0.0
        self.started_at = 0.0
        self.task: Mapping[str, Any] = {}

    def build(self) -> LaunchTimeline:
        """Return the launch with its phases."""
        starts = phase_starts(self.since, self.called_at, self.started_at, self.task)
        return msgspec.structs.replace(self.timeline, phases=build_phases(starts, self.timeline.ended_at))


class _TimelineBuilder:
    """Collects the events of one request in the order of their time."""

    def __init__(self, record_id: str) -> None:
        self._id = record_id
        self._started_at = 0.0
        self.ended_at: float | None = None
        self._is_complete = False
        self.launches: dict[int, _LaunchBuilder] = {}

    def add_event(self, event: JournalEvent) -> None:
        """Add one event."""
        if event.name == "request.submitted":
            self._started_at, self._is_complete = event.at, True
        elif event.name == "request.retry_scheduled":
            self._end_launch(event, "retried")
        elif event.name == "request.ended":
            self._end_launch(event, str(event.data.get("state", "")))
            self.ended_at = event.at
        elif event.name in _EVENT_HANDLERS:
            launch = self._launch_for(event)
            if launch is not None:
                _EVENT_HANDLERS[event.name](launch, event)

    def add_record(self, record: Record) -> None:
        """Add the ledger's facts about the present launch, which the journal may not have yet."""
        if self._is_complete and 1 in self.launches:
            self._started_at = self.launches[1].since = record.created_at  # the client's event came a little later
        launch = self.launches.get(record.launch)
        if launch is None:
            return
        timeline = launch.timeline
        timeline.arn = timeline.arn or record.arn
        timeline.worker = timeline.worker or record.worker
        launch.started_at = launch.started_at or record.launched_at
        if record.started_at and "startedAt" not in launch.task:
            launch.task = {**launch.task, "startedAt": record.started_at}
        if record.is_terminal and not timeline.result:
            timeline.result, timeline.reason, timeline.exit_code = record.state.value, record.reason, record.exit_code
            timeline.ended_at = self.ended_at = record.finished_at

    def build(self, record: Record | None) -> Timeline | None:
        """Return the timeline of all launches; without any, that of the record, None without a record."""
        if not self.launches:
            return None if record is None else _timeline_from_record(record)
        if record is not None:
            self.add_record(record)
        launches = [self.launches[launch].build() for launch in sorted(self.launches)]
        start = self._started_at or self.launches[launches[0].launch].since
        return Timeline(id=self._id, start=start, end=self.ended_at, launches=launches, is_complete=self._is_complete)

    def _launch_for(self, event: JournalEvent) -> _LaunchBuilder | None:
        launch = _launch_number(event)
        if launch and launch not in self.launches:
            ends = [other.timeline.ended_at for other in self.launches.values() if other.timeline.ended_at]
            since = max(ends, default=self._started_at or event.at)
            attempt = int(event.data.get("attempt") or len(self.launches) + 1)
            self.launches[launch] = _LaunchBuilder(launch, attempt, since)
        if launch:
            return self.launches[launch]
        arn = event.data.get("arn")
        return next((other for other in self.launches.values() if other.timeline.arn == arn), None)

    def _end_launch(self, event: JournalEvent, result: str) -> None:
        if not self.launches:
            self.launches[1] = _LaunchBuilder(1, 1, self._started_at or event.at)  # RunTask was never called
        timeline = self.launches[max(self.launches)].timeline
        timeline.result, timeline.reason = result, str(event.data.get("reason", ""))
        timeline.ended_at = event.at
        exit_code = event.data.get("exit_code")
        if isinstance(exit_code, int):
            timeline.exit_code = exit_code


def _on_called(launch: _LaunchBuilder, event: JournalEvent) -> None:
    launch.called_at = launch.called_at or event.at
    launch.timeline.run_task_calls += 1
    launch.timeline.worker = event.worker or launch.timeline.worker
    launch.timeline.attempt = int(event.data.get("attempt") or launch.timeline.attempt)


def _on_started(launch: _LaunchBuilder, event: JournalEvent) -> None:
    launch.started_at = launch.started_at or event.at
    launch.timeline.arn = str(event.data.get("arn", ""))
    launch.timeline.reason = ""


def _on_assigned(launch: _LaunchBuilder, event: JournalEvent) -> None:
    """An idle runner has the request: nothing was called."""
    launch.called_at = launch.called_at or event.at
    launch.timeline.worker = event.worker or launch.timeline.worker
    _on_started(launch, event)


def _on_delayed(launch: _LaunchBuilder, event: JournalEvent) -> None:
    launch.timeline.reason = str(event.data.get("reason", ""))


def _on_refused(launch: _LaunchBuilder, event: JournalEvent) -> None:
    launch.called_at = launch.called_at or event.at
    launch.timeline.result = f"refused ({event.data.get('kind', '')})"
    launch.timeline.reason = str(event.data.get("reason", ""))
    launch.timeline.ended_at = event.at


def _on_task_absent(launch: _LaunchBuilder, event: JournalEvent) -> None:
    if event.data.get("code") in ("requeued", "ended"):
        launch.timeline.result = "not started"
        launch.timeline.reason = launch.timeline.reason or "ECS listed no task of this launch"
        launch.timeline.ended_at = event.at


def _task_times(task: Mapping[str, Any]) -> dict[str, float]:
    """The times of a task that the timeline shows; ValueError for one that is no time."""
    found = {key: parse_timestamp(task[key]) for key in TASK_TIME_KEYS if task.get(key) is not None}
    times = {key: at for key, at in found.items() if at is not None and 0 <= at <= MAX_TIME}
    if len(times) < len(found):
        raise ValueError("a time of the task is no time")
    return times


def _on_polled(launch: _LaunchBuilder, event: JournalEvent) -> None:
    task = event.data.get("task") or _member(event.data.get("poll_input"), "task")
    if isinstance(task, Mapping):
        launch.task = {**launch.task, **_task_times(task)}
        exit_code = _member(_member(event.data.get("decision"), "update"), "exit_code")
        if isinstance(exit_code, int):
            launch.timeline.exit_code = exit_code


_EVENT_HANDLERS = {
    "launch.called": _on_called,
    "launch.started": _on_started,
    "launch.task_found": _on_started,
    "launch.assigned": _on_assigned,
    "launch.no_effect": _on_delayed,
    "launch.ambiguous": _on_delayed,
    "launch.refused": _on_refused,
    "launch.task_absent": _on_task_absent,
    "decision.poll": _on_polled,
}


def _launch_number(event: JournalEvent) -> int:
    record = _member(event.data.get("poll_input"), "record")
    if isinstance(record, Mapping):
        return int(record.get("launch") or 1)  # left out at its default
    return int(event.data.get("launch") or 0)


def _member(value: object, name: str) -> Any:
    """A member of a JSON object; None for anything else."""
    return value.get(name) if isinstance(value, Mapping) else None


def _timeline_from_record(record: Record) -> Timeline:
    """The timeline without a journal: the ledger knows the times of the present launch only."""
    launch = LaunchTimeline(
        launch=record.launch,
        attempt=record.attempts if record.is_terminal else record.attempt,
        worker=record.worker,
        arn=record.arn,
        run_task_calls=record.calls,
        result=record.state.value if record.is_terminal else "",
        reason=record.reason,
        exit_code=record.exit_code,
        ended_at=record.finished_at or None,
    )
    called = record.first_called_at or record.launched_at
    starts = [
        ("wait", record.created_at),
        ("launch", called if record.state is not State.QUEUED else 0.0),
        ("provision", record.launched_at),
        ("run", record.started_at),
    ]
    launch.phases = build_phases(starts, launch.ended_at)
    return Timeline(id=record.id, start=record.created_at, end=launch.ended_at, launches=[launch])
