"""One request's timeline: every launch with its phases, from the journal's events, or from the record alone.

Pure. Times are seconds since the epoch: of the ledger's server for what ecs-queue did, of ECS for what a task did. Two
clocks never agree quite, so a phase begins where the one before it has ended at the earliest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.core.verdict import epoch_seconds
from ecs_queue.journal.base import JournalEvent

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


class Attempt(msgspec.Struct, kw_only=True):
    """One launch number. `calls`: RunTask calls; `result`: what became of it, "" while it goes on; `reason`: why.

    `exit_code` and `reason` are those of the end of this launch, also when another one followed.
    """

    launch: int
    attempt: int
    worker: str = ""
    arn: str = ""
    calls: int = 0
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
    attempts: list[Attempt] = []
    is_whole: bool = False


def timeline_of(record: Record | None, events: Iterable[JournalEvent], record_id: str) -> Timeline | None:
    """The timeline of a request; None when neither the ledger nor the journal knows it.

    `events`: the request's, in the order of their time. Of an id that was used again only the last use counts.
    """
    drafts = _Drafts(record_id)
    for event in events:
        if event.name == "request.submitted" and drafts.has_ended:
            drafts = _Drafts(record_id)  # an id used again: what came before was another request
        drafts.take(event)
    if not drafts.launches:
        return None if record is None else _of_record(record)
    if record is not None:
        drafts.take_record(record)
    return drafts.timeline()


class _Draft:
    """What is known of one launch."""

    def __init__(self, launch: int, attempt: int, since: float) -> None:
        self.about = Attempt(launch=launch, attempt=attempt)
        self.since = since
        self.called_at = 0.0
        self.started_at = 0.0
        self.task: Mapping[str, Any] = {}

    def attempt(self) -> Attempt:
        """With its phases."""
        marks = _marks(self.since, self.called_at, self.started_at, self.task)
        phases = _phases(marks, self.about.ended_at)
        return msgspec.structs.replace(self.about, phases=phases)


class _Drafts:
    """Reads the events of one request, in the order of their time."""

    def __init__(self, record_id: str) -> None:
        self._id = record_id
        self._start = 0.0
        self._ended: float | None = None
        self._is_whole = False
        self.launches: dict[int, _Draft] = {}

    @property
    def has_ended(self) -> bool:
        """Whether its end was told."""
        return self._ended is not None

    def take(self, event: JournalEvent) -> None:
        """One event."""
        data = event.data
        if event.name == "request.submitted":
            self._start, self._is_whole = event.at, True
        elif event.name == "task.retry":
            self._end_attempt(event, "retried")
        elif event.name == "request.ended":
            self._end_attempt(event, str(data.get("state", "")))
            self._ended = event.at
        elif event.name in _TAKE:
            draft = self._draft(event)
            if draft is not None:
                _TAKE[event.name](draft, event)

    def take_record(self, record: Record) -> None:
        """What the ledger knows of the present launch and the journal may not have seen yet."""
        if self._is_whole and 1 in self.launches:
            self._start = self.launches[1].since = record.created_at  # the client told it a little later
        draft = self.launches.get(record.launch)
        if draft is None:
            return
        about = draft.about
        about.arn = about.arn or record.arn
        about.worker = about.worker or record.worker
        draft.started_at = draft.started_at or record.launched_at
        if record.started_at and "startedAt" not in draft.task:
            draft.task = {**draft.task, "startedAt": record.started_at}
        if record.ended and not about.result:
            about.result, about.reason, about.exit_code = record.state.value, record.reason, record.exit_code
            about.ended_at = self._ended = record.finished_at

    def timeline(self) -> Timeline:
        """All of it."""
        attempts = [self.launches[launch].attempt() for launch in sorted(self.launches)]
        start = self._start or attempts[0].phases[0].start
        return Timeline(id=self._id, start=start, end=self._ended, attempts=attempts, is_whole=self._is_whole)

    def _draft(self, event: JournalEvent) -> _Draft | None:
        launch = _launch_of(event)
        if launch and launch not in self.launches:
            before = [draft.about.ended_at for draft in self.launches.values() if draft.about.ended_at]
            since = max(before, default=self._start or event.at)
            self.launches[launch] = _Draft(launch, int(event.data.get("attempt") or len(self.launches) + 1), since)
        if launch:
            return self.launches[launch]
        arn = event.data.get("arn")
        return next((draft for draft in self.launches.values() if draft.about.arn == arn), None)

    def _end_attempt(self, event: JournalEvent, result: str) -> None:
        if not self.launches:
            self.launches[1] = _Draft(1, 1, self._start or event.at)  # it never came to a call
        about = self.launches[max(self.launches)].about
        about.result, about.reason = result, str(event.data.get("reason", ""))
        about.ended_at = event.at
        code = event.data.get("exit_code")
        if isinstance(code, int):
            about.exit_code = code


def _called(draft: _Draft, event: JournalEvent) -> None:
    draft.called_at = draft.called_at or event.at
    draft.about.calls += 1
    draft.about.worker = event.worker or draft.about.worker
    draft.about.attempt = int(event.data.get("attempt") or draft.about.attempt)


def _started(draft: _Draft, event: JournalEvent) -> None:
    draft.started_at = draft.started_at or event.at
    draft.about.arn = str(event.data.get("arn", ""))
    draft.about.reason = ""


def _not_yet(draft: _Draft, event: JournalEvent) -> None:
    draft.about.reason = str(event.data.get("reason", ""))


def _refused(draft: _Draft, event: JournalEvent) -> None:
    draft.called_at = draft.called_at or event.at
    draft.about.result = f"refused ({event.data.get('kind', '')})"
    draft.about.reason = str(event.data.get("reason", ""))
    draft.about.ended_at = event.at


def _none_found(draft: _Draft, event: JournalEvent) -> None:
    if event.data.get("word") in ("retry", "ended"):
        draft.about.result = "not started"
        draft.about.reason = draft.about.reason or "looked for on ECS, and nothing was there"
        draft.about.ended_at = event.at


def _seen(draft: _Draft, event: JournalEvent) -> None:
    look = event.data.get("look")
    task = event.data.get("task") or (look.get("task") if isinstance(look, Mapping) else None)
    if isinstance(task, Mapping):
        draft.task = {**draft.task, **task}
        code = _exit_code(event.data.get("took"))
        draft.about.exit_code = code if code is not None else draft.about.exit_code


_TAKE = {
    "launch.called": _called,
    "launch.started": _started,
    "launch.found": _started,
    "launch.no_effect": _not_yet,
    "launch.unsure": _not_yet,
    "launch.refused": _refused,
    "launch.looked": _none_found,
    "decision.look": _seen,
}


def _launch_of(event: JournalEvent) -> int:
    look = event.data.get("look")
    if isinstance(look, Mapping) and isinstance(look.get("record"), Mapping):
        return int(look["record"].get("launch") or 1)  # at its default it is left out
    return int(event.data.get("launch") or 0)


def _exit_code(took: object) -> int | None:
    """Of what was decided on a look."""
    outcome = took.get("outcome") if isinstance(took, Mapping) else None
    code = outcome.get("exit_code") if isinstance(outcome, Mapping) else None
    return code if isinstance(code, int) else None


def _marks(since: float, called: float, started: float, task: Mapping[str, Any]) -> list[tuple[str, float]]:
    """When each phase began; 0: it did not, or nobody knows."""
    at = {key: epoch_seconds(task.get(key)) or 0.0 for key in _TIMES}
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


_TIMES = ("pullStartedAt", "pullStoppedAt", "startedAt", "stoppingAt", "executionStoppedAt", "stoppedAt")


def _phases(marks: list[tuple[str, float]], ended_at: float | None) -> list[Phase]:
    """The phases between the marks that there are. The last one ends with the launch, or goes on."""
    phases: list[Phase] = []
    known = [(name, at) for name, at in marks if at]
    place = 0.0
    for position, (name, at) in enumerate(known):
        place = max(place, at)
        if not name:
            break
        following = [later for _, later in known[position + 1 :]]
        end = max(place, following[0]) if following else ended_at
        if end is not None:
            end = max(place, end)
        if not (name in ("start", "stop") and end is not None and end - place < _NO_TIME):
            phases.append(Phase(name, place, end))
    return phases


#: A start or a stop as short as this is no phase of its own: not everything has one. Seconds.
_NO_TIME = 0.01


def _of_record(record: Record) -> Timeline:
    """The ledger knows the times of the present launch only."""
    about = Attempt(
        launch=record.launch,
        attempt=record.attempts if record.ended else record.attempt,
        worker=record.worker,
        arn=record.arn,
        calls=record.calls,
        result=record.state.value if record.ended else "",
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
    about.phases = _phases(marks, about.ended_at)
    return Timeline(id=record.id, start=record.created_at, end=about.ended_at, attempts=[about])
