"""Timelines of launches from the journal's events, from polls and from the record."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from ecs_queue.cli.ui.timeline_view import timeline_summary, timeline_to_dicts
from ecs_queue.journal.base import JournalEvent
from ecs_queue.journal.timeline import LaunchTimeline, Timeline, build_timeline
from ecs_queue.protocol.record import Record
from ecs_queue.protocol.states import State

START = 1_800_000_000.0
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/prod/"


class EventHistory:
    """Events of one request; times are seconds after START."""

    def __init__(self) -> None:
        self.events: list[JournalEvent] = []
        self._numbers = itertools.count()

    def add(self, at: float, name: str, worker: str = "w1", **data: Any) -> EventHistory:
        """Add one event."""
        seq = f"{round((START + at) * 1000)}-0.{next(self._numbers)}"
        event = JournalEvent(v=1, seq=seq, at=START + at, name=name, id="job", worker=worker, data=data)
        self.events.append(event)
        return self

    def add_launch(
        self, at: float, launch: int, attempt: int, seconds: float = 0.25, worker: str = "w1"
    ) -> EventHistory:
        """Add a RunTask call and its result."""
        self.add(at, "launch.called", worker, launch=launch, attempt=attempt)
        return self.add(at + seconds, "launch.started", worker, launch=launch, arn=f"{ARN}{launch}")

    def polled(self, at: float, launch: int, status: str, exit_code: int | None = None, **times: float) -> EventHistory:
        """Add a poll of the launch's task with these times."""
        task = {"taskArn": f"{ARN}{launch}", **{name: START + value for name, value in times.items()}}
        poll_input = {"record": {"launch": launch} if launch > 1 else {}, "task": task}
        decision = {"update": {"exit_code": exit_code}}
        return self.add(
            at,
            "decision.poll",
            arn=f"{ARN}{launch}",
            status=status,
            poll_input=poll_input,
            draw=None,
            decision=decision,
        )

    def add_end(self, at: float, state: str, exit_code: int | str = "-", reason: str = "") -> EventHistory:
        """Add the last event."""
        return self.add(at, "request.ended", state=state, exit_code=exit_code, attempts=1, reason=reason)

    def build(self, record: Record | None = None) -> Timeline:
        """Return the timeline."""
        found = build_timeline(record, self.events, "job")
        assert found is not None
        return found


@pytest.fixture
def history() -> EventHistory:
    return EventHistory().add(0, "request.submitted", worker="").add(0.5, "request.received")


def phase_spans(attempt: LaunchTimeline) -> list[tuple[str, float, float | None]]:
    """Return the phases in seconds after START."""
    return [(p.name, p.start - START, None if p.end is None else p.end - START) for p in attempt.phases]


def test_a_complete_launch_has_every_phase_with_the_times_of_ecs(history: EventHistory) -> None:
    history.add_launch(1, 1, 1)
    history.polled(5, 1, "PENDING", pullStartedAt=4)
    history.polled(12, 1, "RUNNING", pullStartedAt=4, pullStoppedAt=9, startedAt=10)
    times = {"pullStartedAt": 4, "pullStoppedAt": 9, "startedAt": 10, "stoppingAt": 20, "stoppedAt": 24}
    history.polled(25, 1, "STOPPED", 3, **times)
    history.add_end(25.5, "FAILED", 3, "Essential container in task exited")
    timeline = history.build()
    (attempt,) = timeline.launches
    assert phase_spans(attempt) == [
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
    assert (timeline.start - START, timeline.end, timeline.is_complete) == (0, START + 25.5, True)


def test_every_attempt_has_its_own_worker_task_and_end(history: EventHistory) -> None:
    history.add_launch(1, 1, 1).polled(8, 1, "STOPPED", pullStartedAt=2, stoppedAt=7)
    history.add(8, "request.retry_scheduled", attempt=2, reason="CannotPullContainerError")
    history.add_launch(10, 2, 2, worker="w2").polled(15, 2, "STOPPED", 0, startedAt=12, stoppedAt=14)
    history.add_end(15, "SUCCESS", 0)
    first, second = history.build().launches
    assert (first.result, first.reason, first.worker, first.arn) == (
        "retried",
        "CannotPullContainerError",
        "w1",
        f"{ARN}1",
    )
    assert phase_spans(first) == [("wait", 0, 1), ("launch", 1, 1.25), ("provision", 1.25, 2), ("pull", 2, 7)]
    assert (second.attempt, second.launch, second.worker, second.result) == (2, 2, "w2", "SUCCESS")
    assert phase_spans(second)[0] == ("wait", 8, 10)
    assert phase_spans(second)[-1] == ("run", 12, 14)


def test_a_request_that_an_idle_runner_took_was_launched_without_a_call(history: EventHistory) -> None:
    history.add(0.6, "launch.assigned", "w2", launch=1, run="other.nonce.1", arn=f"{ARN}7")
    record = Record(id="job", state=State.LAUNCHED, launched_at=START + 0.6, started_at=START + 0.7, arn=f"{ARN}7")

    (launch,) = history.build(record).launches
    assert (launch.run_task_calls, launch.worker, launch.arn) == (0, "w2", f"{ARN}7")


def test_a_throttled_call_is_a_part_of_the_launch_and_a_refusal_ends_it(history: EventHistory) -> None:
    history.add(1, "launch.called", launch=1, attempt=1)
    history.add(1.25, "launch.no_effect", launch=1, reason="Rate exceeded")
    history.add(3, "launch.called", launch=1, attempt=1)
    history.add(3.25, "launch.refused", launch=1, kind="capacity", reason="Capacity is unavailable")
    history.add_launch(7, 2, 1)
    refused, running = history.build().launches
    assert (refused.run_task_calls, refused.result, refused.reason) == (
        2,
        "refused (capacity)",
        "Capacity is unavailable",
    )
    assert phase_spans(refused) == [("wait", 0, 1), ("launch", 1, 3.25)]
    assert (running.launch, running.attempt, running.result) == (2, 1, "")
    assert phase_spans(running) == [("wait", 3.25, 7), ("launch", 7, 7.25), ("provision", 7.25, None)]


def test_a_launch_that_waits_for_its_next_call_has_a_reason(history: EventHistory) -> None:
    history.add(1, "launch.called", launch=1, attempt=1).add(2, "launch.ambiguous", launch=1, reason="timed out")
    (attempt,) = history.build().launches
    assert (attempt.result, attempt.reason) == ("", "timed out")
    assert phase_spans(attempt) == [("wait", 0, 1), ("launch", 1, None)]


def test_a_launch_whose_task_is_absent_has_ended(history: EventHistory) -> None:
    history.add(1, "launch.called", launch=1, attempt=1)
    history.add(9, "launch.task_absent", launch=1, code="early").add(
        20, "launch.task_absent", launch=1, code="requeued"
    )
    (attempt,) = history.build().launches
    assert (attempt.result, attempt.ended_at) == ("not started", START + 20)


def test_a_request_that_was_never_called_ends_in_its_wait(history: EventHistory) -> None:
    history.add_end(60, "EXPIRED", reason="not started before its deadline")
    (attempt,) = history.build().launches
    assert phase_spans(attempt) == [("wait", 0, 60)]
    assert (attempt.result, attempt.arn) == ("EXPIRED", "")


def test_clocks_that_differ_never_make_a_phase_run_backwards(history: EventHistory) -> None:
    history.add_launch(5, 1, 1).polled(
        9, 1, "STOPPED", 0, startedAt=3, stoppingAt=4, stoppedAt=4.5
    )  # ECS is 3 s behind
    history.add_end(9, "SUCCESS", 0)
    (attempt,) = history.build().launches
    for phase in attempt.phases:
        assert phase.end is not None
        assert phase.end >= phase.start
    assert [phase.start for phase in attempt.phases] == sorted(phase.start for phase in attempt.phases)


def test_an_id_that_was_used_again_shows_its_last_use(history: EventHistory) -> None:
    history.add_launch(1, 1, 1).add_end(5, "SUCCESS", 0)
    history.add(100, "request.submitted", worker="").add_launch(101, 1, 1, worker="w9")
    timeline = history.build()
    assert timeline.start == START + 100
    assert [attempt.worker for attempt in timeline.launches] == ["w9"]
    assert timeline.end is None


def test_a_submission_event_after_the_call_changes_nothing() -> None:
    history = EventHistory().add_launch(1, 1, 1).add(1.125, "request.submitted", worker="")  # two processes wrote
    record = Record(id="job", created_at=START + 0.5, state=State.LAUNCHED, launched_at=START + 1.25, arn=f"{ARN}1")
    (attempt,) = history.build(record).launches
    assert phase_spans(attempt)[0] == ("wait", 0.5, 1)


def test_the_record_adds_facts_that_the_journal_lacks(history: EventHistory) -> None:
    history.add(1, "launch.called", launch=1, attempt=1)
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
    timeline = history.build(record)
    (attempt,) = timeline.launches
    assert phase_spans(attempt) == [("wait", 0, 1), ("launch", 1, 2), ("provision", 2, 4), ("run", 4, 9)]
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
def test_without_a_journal_the_record_gives_the_present_launch(
    facts: dict[str, Any], expected: Sequence[tuple[str, float, float | None]]
) -> None:
    timeline = build_timeline(Record(id="job", created_at=START, **facts), (), "job")
    assert timeline is not None
    assert phase_spans(timeline.launches[0]) == expected
    assert not timeline.is_complete


def test_an_unknown_request_has_no_timeline() -> None:
    assert build_timeline(None, (), "job") is None


def test_no_event_of_the_catalogue_and_no_odd_data_breaks_a_timeline(history: EventHistory) -> None:
    from ecs_queue.telemetry import EVENTS

    for number, name in enumerate(EVENTS):
        history.add(2 + number, name)
        history.add(2 + number, name, launch=1, poll_input=None, decision=None, task=None, arn=None, reason=None)
    assert history.build().launches


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("launch.called", {"launch": "x"}),
        ("launch.called", {"launch": 2, "attempt": [1]}),
        ("launch.started", {"launch": {"a": 1}}),
        ("decision.poll", {"poll_input": {"record": {"launch": [1]}, "task": {"a": 1}}}),
        ("decision.poll", {"poll_input": {"record": {}, "task": {"startedAt": -1}}}),
        ("decision.poll", {"poll_input": {"record": {}, "task": {"stoppedAt": 1e17}}}),
        ("decision.poll", {"poll_input": {"record": {}, "task": {"pullStartedAt": "soon"}}}),
    ],
)
def test_a_broken_event_is_left_out_and_counted(history: EventHistory, name: str, data: dict[str, Any]) -> None:
    history.add_launch(0, 1, 1).add(1, name, **data).add_end(2, "SUCCESS", 0)

    timeline = history.build()

    assert (timeline.unused_events, timeline.end, len(timeline.launches)) == (1, START + 2, 1)
    timeline_summary(timeline)
    timeline_to_dicts(timeline)


def test_a_launch_without_any_phase_has_a_timeline() -> None:
    history = EventHistory().add(-START, "launch.no_effect", launch=1, reason="throttled")  # written with no clock

    timeline = build_timeline(None, history.events, "job")

    assert timeline is not None
    assert (timeline.start, timeline.launches[0].phases) == (0.0, [])
    timeline_summary(timeline)
