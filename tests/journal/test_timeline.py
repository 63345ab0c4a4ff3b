"""Timelines: what the journal's events, the looks at tasks and the record say of each launch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from ecs_queue.core.record import Record
from ecs_queue.core.states import State
from ecs_queue.journal.base import JournalEvent
from ecs_queue.journal.timeline import Attempt, Timeline, timeline_of

START = 1_800_000_000.0
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/prod/"


class Story:
    """Events of one request; times are seconds after START."""

    def __init__(self) -> None:
        self.events: list[JournalEvent] = []
        self._numbers = itertools.count()

    def tell(self, at: float, name: str, worker: str = "w1", **data: Any) -> Story:
        """One event."""
        seq = f"{round((START + at) * 1000)}-0.{next(self._numbers)}"
        event = JournalEvent(v=1, seq=seq, at=START + at, name=name, id="job", worker=worker, data=data)
        self.events.append(event)
        return self

    def launched(self, at: float, launch: int, attempt: int, took: float = 0.25, worker: str = "w1") -> Story:
        """A RunTask call and its answer."""
        self.tell(at, "launch.called", worker, launch=launch, attempt=attempt)
        return self.tell(at + took, "launch.started", worker, launch=launch, arn=f"{ARN}{launch}")

    def seen(self, at: float, launch: int, status: str, exit_code: int | None = None, **times: float) -> Story:
        """A look at the launch's task with these times."""
        task = {"taskArn": f"{ARN}{launch}", **{name: START + value for name, value in times.items()}}
        look = {"record": {"launch": launch} if launch > 1 else {}, "task": task}
        took = {"outcome": {"exit_code": exit_code}}
        return self.tell(at, "decision.look", arn=f"{ARN}{launch}", status=status, look=look, draw=None, took=took)

    def ended(self, at: float, state: str, exit_code: int | str = "-", reason: str = "") -> Story:
        """The last event."""
        return self.tell(at, "request.ended", state=state, exit_code=exit_code, attempts=1, reason=reason)

    def timeline(self, record: Record | None = None) -> Timeline:
        """What it comes to."""
        found = timeline_of(record, self.events, "job")
        assert found is not None
        return found


@pytest.fixture
def story() -> Story:
    return Story().tell(0, "request.submitted", worker="").tell(0.5, "request.received")


def spans(attempt: Attempt) -> list[tuple[str, float, float | None]]:
    """The phases, in seconds after START."""
    return [(p.name, p.start - START, None if p.end is None else p.end - START) for p in attempt.phases]


def test_a_whole_life_has_every_phase_with_ecs_own_times(story: Story) -> None:
    story.launched(1, 1, 1)
    story.seen(5, 1, "PENDING", pullStartedAt=4)
    story.seen(12, 1, "RUNNING", pullStartedAt=4, pullStoppedAt=9, startedAt=10)
    times = {"pullStartedAt": 4, "pullStoppedAt": 9, "startedAt": 10, "stoppingAt": 20, "stoppedAt": 24}
    story.seen(25, 1, "STOPPED", 3, **times)
    story.ended(25.5, "FAILED", 3, "Essential container in task exited")
    timeline = story.timeline()
    (attempt,) = timeline.attempts
    assert spans(attempt) == [
        ("wait", 0, 1),
        ("launch", 1, 1.25),
        ("provision", 1.25, 4),
        ("pull", 4, 9),
        ("start", 9, 10),
        ("run", 10, 20),
        ("stop", 20, 24),
    ]
    assert (attempt.worker, attempt.arn, attempt.exit_code) == ("w1", f"{ARN}1", 3)
    assert (attempt.result, attempt.reason) == ("FAILED", "Essential container in task exited")
    assert (timeline.start - START, timeline.end, timeline.is_whole) == (0, START + 25.5, True)


def test_every_attempt_has_its_own_worker_task_and_end(story: Story) -> None:
    story.launched(1, 1, 1).seen(8, 1, "STOPPED", pullStartedAt=2, stoppedAt=7)
    story.tell(8, "task.retry", attempt=2, reason="CannotPullContainerError")
    story.launched(10, 2, 2, worker="w2").seen(15, 2, "STOPPED", 0, startedAt=12, stoppedAt=14)
    story.ended(15, "SUCCESS", 0)
    first, second = story.timeline().attempts
    assert (first.result, first.reason, first.worker, first.arn) == (
        "retried",
        "CannotPullContainerError",
        "w1",
        f"{ARN}1",
    )
    assert spans(first) == [("wait", 0, 1), ("launch", 1, 1.25), ("provision", 1.25, 2), ("pull", 2, 7)]
    assert (second.attempt, second.launch, second.worker, second.result) == (2, 2, "w2", "SUCCESS")
    assert spans(second)[0] == ("wait", 8, 10)
    assert spans(second)[-1] == ("run", 12, 14)


def test_a_throttled_call_is_a_part_of_the_launch_and_a_refusal_ends_it(story: Story) -> None:
    story.tell(1, "launch.called", launch=1, attempt=1)
    story.tell(1.25, "launch.no_effect", launch=1, reason="Rate exceeded")
    story.tell(3, "launch.called", launch=1, attempt=1)
    story.tell(3.25, "launch.refused", launch=1, kind="capacity", reason="Capacity is unavailable")
    story.launched(7, 2, 1)
    refused, running = story.timeline().attempts
    assert (refused.calls, refused.result, refused.reason) == (2, "refused (capacity)", "Capacity is unavailable")
    assert spans(refused) == [("wait", 0, 1), ("launch", 1, 3.25)]
    assert (running.launch, running.attempt, running.result) == (2, 1, "")
    assert spans(running) == [("wait", 3.25, 7), ("launch", 7, 7.25), ("provision", 7.25, None)]


def test_what_waits_for_its_next_call_says_why(story: Story) -> None:
    story.tell(1, "launch.called", launch=1, attempt=1).tell(2, "launch.unsure", launch=1, reason="timed out")
    (attempt,) = story.timeline().attempts
    assert (attempt.result, attempt.reason) == ("", "timed out")
    assert spans(attempt) == [("wait", 0, 1), ("launch", 1, None)]


def test_a_launch_that_was_looked_for_in_vain_has_ended(story: Story) -> None:
    story.tell(1, "launch.called", launch=1, attempt=1)
    story.tell(9, "launch.looked", launch=1, word="early").tell(20, "launch.looked", launch=1, word="retry")
    (attempt,) = story.timeline().attempts
    assert (attempt.result, attempt.ended_at) == ("not started", START + 20)


def test_a_request_that_was_never_called_ends_in_its_wait(story: Story) -> None:
    story.ended(60, "EXPIRED", reason="not started before its deadline")
    (attempt,) = story.timeline().attempts
    assert spans(attempt) == [("wait", 0, 60)]
    assert (attempt.result, attempt.arn) == ("EXPIRED", "")


def test_clocks_that_differ_never_make_a_phase_run_backwards(story: Story) -> None:
    story.launched(5, 1, 1).seen(9, 1, "STOPPED", 0, startedAt=3, stoppingAt=4, stoppedAt=4.5)  # ECS is 3 s behind
    story.ended(9, "SUCCESS", 0)
    (attempt,) = story.timeline().attempts
    for phase in attempt.phases:
        assert phase.end is not None
        assert phase.end >= phase.start
    assert [phase.start for phase in attempt.phases] == sorted(phase.start for phase in attempt.phases)


def test_an_id_that_was_used_again_shows_its_last_use(story: Story) -> None:
    story.launched(1, 1, 1).ended(5, "SUCCESS", 0)
    story.tell(100, "request.submitted", worker="").launched(101, 1, 1, worker="w9")
    timeline = story.timeline()
    assert timeline.start == START + 100
    assert [attempt.worker for attempt in timeline.attempts] == ["w9"]
    assert timeline.end is None


def test_a_submission_that_is_told_after_the_call_takes_nothing_away() -> None:
    story = Story().launched(1, 1, 1).tell(1.125, "request.submitted", worker="")  # two processes wrote
    record = Record(id="job", created_at=START + 0.5, state=State.LAUNCHED, launched_at=START + 1.25, arn=f"{ARN}1")
    (attempt,) = story.timeline(record).attempts
    assert spans(attempt)[0] == ("wait", 0.5, 1)


def test_the_ledger_fills_in_what_the_journal_has_not_seen_yet(story: Story) -> None:
    story.tell(1, "launch.called", launch=1, attempt=1)
    record = Record(
        id="job",
        created_at=START,
        state=State.SUCCESS,
        attempts=1,
        launched_at=START + 2,
        started_at=START + 4,
        finished_at=START + 9,
        arn=f"{ARN}1",
        exit_code=0,
        reason="done",
    )
    timeline = story.timeline(record)
    (attempt,) = timeline.attempts
    assert spans(attempt) == [("wait", 0, 1), ("launch", 1, 2), ("provision", 2, 4), ("run", 4, 9)]
    assert (attempt.result, attempt.exit_code, timeline.end) == ("SUCCESS", 0, START + 9)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"state": State.QUEUED}, [("wait", 0, None)]),
        ({"state": State.LAUNCHING, "first_called_at": START + 2}, [("wait", 0, 2), ("launch", 2, None)]),
        (
            {"state": State.LAUNCHED, "first_called_at": START + 2, "launched_at": START + 3},
            [("wait", 0, 2), ("launch", 2, 3), ("provision", 3, None)],
        ),
        (
            {"state": State.FAILED, "launched_at": START + 3, "started_at": START + 5, "finished_at": START + 7},
            [("wait", 0, 3), ("launch", 3, 3), ("provision", 3, 5), ("run", 5, 7)],
        ),
        ({"state": State.REVOKED, "finished_at": START + 7}, [("wait", 0, 7)]),
    ],
)
def test_without_a_journal_the_record_tells_of_the_present_launch(
    facts: dict[str, Any], expected: Sequence[tuple[str, float, float | None]]
) -> None:
    timeline = timeline_of(Record(id="job", created_at=START, **facts), (), "job")
    assert timeline is not None
    assert spans(timeline.attempts[0]) == expected
    assert not timeline.is_whole


def test_what_nobody_knows_has_no_timeline() -> None:
    assert timeline_of(None, (), "job") is None


def test_no_event_of_the_catalogue_and_no_odd_data_breaks_a_timeline(story: Story) -> None:
    from ecs_queue.telemetry import EVENTS

    for number, name in enumerate(EVENTS):
        story.tell(2 + number, name)
        story.tell(2 + number, name, launch=1, look=None, took=None, task=None, arn=None, reason=None)
    assert story.timeline().attempts
