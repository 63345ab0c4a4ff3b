"""One request's timeline: every launch with its phases, from the journal's events, or from the record alone.

Pure. Times are seconds since the epoch: of the ledger's server for what ecs-queue did, of ECS for what a task did. Two
clocks never agree quite, so a phase begins where the one before it has ended at the earliest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ecs_queue.journal.base import JournalEvent
from ecs_queue.protocol.observation import parse_timestamp
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

#: In their order. `wait`: in the queue, or for the next attempt. `launch`: until RunTask has said yes, with every
#: call. `provision`: until the image is pulled, or the container runs. `pull`: the image. `start`: from the image to
#: the running container. `run`: the command. `stop`: from the order to stop, or the command's end, to STOPPED.
PHASES = ("wait", "launch", "provision", "pull", "start", "run", "stop")


class Phase(msgspec.Struct, frozen=True):
    """`end` None: it goes on."""

    name: str
    start: float
    end: float | None = None

    def seconds(self, now: float) -> float:
        """How long it took, or has taken until now."""
        return max(0.0, (now if self.end is None else self.end) - self.start)


class LaunchTimeline(msgspec.Struct, kw_only=True):
    """One launch number. `calls`: RunTask calls; `result`: what became of it, "" while it goes on; `reason`: why.

    `exit_code` and `reason` are those of the end of this launch, also when another one followed.
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
    """`is_whole`: the journal has told of every launch; else there may have been more than are shown."""

    id: str
    start: float
    end: float | None = None  # None: it goes on
    launches: list[LaunchTimeline] = []
    is_complete: bool = False


def build_timeline(record: Record | None, events: Iterable[JournalEvent], record_id: str) -> Timeline | None:
    """The timeline of a request; None when neither the ledger nor the journal knows it.

    `events`: the request's, in the order of their time. Of an id that was used again only the last use counts.
    """
    drafts = _TimelineBuilder(record_id)
    for event in events:
        if event.name == "request.submitted" and drafts.has_ended:
            drafts = _TimelineBuilder(record_id)  # an id used again: what came before was another request
        drafts.add_event(event)
    if not drafts.launches:
        return None if record is None else _timeline_from_record(record)
    if record is not None:
        drafts.add_record(record)
    return drafts.build()


class _LaunchBuilder:
    """What is known of one launch."""

    def __init__(self, launch: int, attempt: int, since: float) -> None:
        self.timeline = LaunchTimeline(launch=launch, attempt=attempt)
        self.since = since
        self.called_at = 0.0
        self.started_at = 0.0
        self.task: Mapping[str, Any] = {}

    def build(self) -> LaunchTimeline:
        """With its phases."""
        marks = _phase_starts(self.since, self.called_at, self.started_at, self.task)
        phases = _build_phases(marks, self.timeline.ended_at)
        return msgspec.structs.replace(self.timeline, phases=phases)


class _TimelineBuilder:
    """Reads the events of one request, in the order of their time."""

    def __init__(self, record_id: str) -> None:
        self._id = record_id
        self._started_at = 0.0
        self._ended_at: float | None = None
        self._is_complete = False
        self.launches: dict[int, _LaunchBuilder] = {}

    @property
    def has_ended(self) -> bool:
        """Whether its end was told."""
        return self._ended_at is not None

    def add_event(self, event: JournalEvent) -> None:
        """One event."""
        data = event.data
        if event.name == "request.submitted":
            self._started_at, self._is_complete = event.at, True
        elif event.name == "request.retry_scheduled":
            self._end_launch(event, "retried")
        elif event.name == "request.ended":
            self._end_launch(event, str(data.get("state", "")))
            self._ended_at = event.at
        elif event.name in _EVENT_HANDLERS:
            draft = self._launch_for(event)
            if draft is not None:
                _EVENT_HANDLERS[event.name](draft, event)

    def add_record(self, record: Record) -> None:
        """What the ledger knows of the present launch and the journal may not have seen yet."""
        if self._is_complete and 1 in self.launches:
            self._started_at = self.launches[1].since = record.created_at  # the client told it a little later
        draft = self.launches.get(record.launch)
        if draft is None:
            return
        about = draft.timeline
        about.arn = about.arn or record.arn
        about.worker = about.worker or record.worker
        draft.started_at = draft.started_at or record.launched_at
        if record.started_at and "startedAt" not in draft.task:
            draft.task = {**draft.task, "startedAt": record.started_at}
        if record.is_terminal and not about.result:
            about.result, about.reason, about.exit_code = record.state.value, record.reason, record.exit_code
            about.ended_at = self._ended_at = record.finished_at

    def build(self) -> Timeline:
        """All of it."""
        attempts = [self.launches[launch].build() for launch in sorted(self.launches)]
        start = self._started_at or attempts[0].phases[0].start
        return Timeline(id=self._id, start=start, end=self._ended_at, launches=attempts, is_complete=self._is_complete)

    def _launch_for(self, event: JournalEvent) -> _LaunchBuilder | None:
        launch = _launch_number(event)
        if launch and launch not in self.launches:
            before = [draft.timeline.ended_at for draft in self.launches.values() if draft.timeline.ended_at]
            since = max(before, default=self._started_at or event.at)
            self.launches[launch] = _LaunchBuilder(
                launch, int(event.data.get("attempt") or len(self.launches) + 1), since
            )
        if launch:
            return self.launches[launch]
        arn = event.data.get("arn")
        return next((draft for draft in self.launches.values() if draft.timeline.arn == arn), None)

    def _end_launch(self, event: JournalEvent, result: str) -> None:
        if not self.launches:
            self.launches[1] = _LaunchBuilder(1, 1, self._started_at or event.at)  # it never came to a call
        about = self.launches[max(self.launches)].timeline
        about.result, about.reason = result, str(event.data.get("reason", ""))
        about.ended_at = event.at
        code = event.data.get("exit_code")
        if isinstance(code, int):
            about.exit_code = code


def _on_called(launch: _LaunchBuilder, event: JournalEvent) -> None:
    launch.called_at = launch.called_at or event.at
    launch.timeline.run_task_calls += 1
    launch.timeline.worker = event.worker or launch.timeline.worker
    launch.timeline.attempt = int(event.data.get("attempt") or launch.timeline.attempt)


def _on_started(launch: _LaunchBuilder, event: JournalEvent) -> None:
    launch.started_at = launch.started_at or event.at
    launch.timeline.arn = str(event.data.get("arn", ""))
    launch.timeline.reason = ""


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
        launch.timeline.reason = launch.timeline.reason or "looked for on ECS, and nothing was there"
        launch.timeline.ended_at = event.at


def _on_polled(launch: _LaunchBuilder, event: JournalEvent) -> None:
    look = event.data.get("poll_input")
    task = event.data.get("task") or (look.get("task") if isinstance(look, Mapping) else None)
    if isinstance(task, Mapping):
        launch.task = {**launch.task, **task}
        code = _decided_exit_code(event.data.get("decision"))
        launch.timeline.exit_code = code if code is not None else launch.timeline.exit_code


_EVENT_HANDLERS = {
    "launch.called": _on_called,
    "launch.started": _on_started,
    "launch.task_found": _on_started,
    "launch.no_effect": _on_delayed,
    "launch.ambiguous": _on_delayed,
    "launch.refused": _on_refused,
    "launch.task_absent": _on_task_absent,
    "decision.poll": _on_polled,
}


def _launch_number(event: JournalEvent) -> int:
    look = event.data.get("poll_input")
    if isinstance(look, Mapping) and isinstance(look.get("record"), Mapping):
        return int(look["record"].get("launch") or 1)  # at its default it is left out
    return int(event.data.get("launch") or 0)


def _decided_exit_code(decision: object) -> int | None:
    """Of what was decided on a look."""
    outcome = decision.get("update") if isinstance(decision, Mapping) else None
    code = outcome.get("exit_code") if isinstance(outcome, Mapping) else None
    return code if isinstance(code, int) else None


def _phase_starts(since: float, called: float, started: float, task: Mapping[str, Any]) -> list[tuple[str, float]]:
    """When each phase began; 0: it did not, or nobody knows."""
    at = {key: parse_timestamp(task.get(key)) or 0.0 for key in _TASK_TIME_KEYS}
    runs = at["startedAt"]
    stops = [at[key] for key in ("stoppingAt", "executionStoppedAt", "stoppedAt") if at[key]]
    return [
        ("wait", since),
        ("launch", called),
        ("provision", started),
        ("pull", at["pullStartedAt"]),
        ("start", at["pullStoppedAt"] if at["pullStartedAt"] else 0.0),
        ("run", runs),
        ("stop", min(stops, default=0.0)),
        ("", at["stoppedAt"]),
    ]


_TASK_TIME_KEYS = ("pullStartedAt", "pullStoppedAt", "startedAt", "stoppingAt", "executionStoppedAt", "stoppedAt")


def _build_phases(starts: list[tuple[str, float]], ended_at: float | None) -> list[Phase]:
    """The phases between the marks that there are. The last one ends with the launch, or goes on."""
    phases: list[Phase] = []
    known = [(name, at) for name, at in starts if at]
    place = 0.0
    for position, (name, at) in enumerate(known):
        place = max(place, at)
        if not name:
            break
        following = [later for _, later in known[position + 1 :]]
        end = max(place, following[0]) if following else ended_at
        if end is not None:
            end = max(place, end)
        if not (name in ("start", "stop") and end is not None and end - place < _MIN_PHASE_SECONDS):
            phases.append(Phase(name, place, end))
    return phases


#: A start or a stop as short as this is no phase of its own: not everything has one. Seconds.
_MIN_PHASE_SECONDS = 0.01


def _timeline_from_record(record: Record) -> Timeline:
    """The ledger knows the times of the present launch only."""
    about = LaunchTimeline(
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
    marks = [
        ("wait", record.created_at),
        ("launch", called if record.state is not State.QUEUED else 0.0),
        ("provision", record.launched_at),
        ("run", record.started_at),
    ]
    about.phases = _build_phases(marks, about.ended_at)
    return Timeline(id=record.id, start=record.created_at, end=about.ended_at, launches=[about])
