"""For how long ECS has not shown a task."""

from __future__ import annotations

from ecs_queue.worker.missing_tasks import MissingTasks
from tests.fake_clock import FakeClock


def test_it_counts_from_the_first_poll_that_did_not_show_it() -> None:
    clock = FakeClock()
    missing = MissingTasks(clock, grace=600.0)
    assert missing.mark_missing("arn") == 0

    clock.advance(10)
    missing.mark_missing("arn")
    clock.advance(15)

    assert missing.mark_missing("arn") == 25


def test_a_poll_that_shows_it_begins_anew() -> None:
    clock = FakeClock()
    missing = MissingTasks(clock, grace=600.0)
    missing.mark_missing("arn")
    clock.advance(10)

    missing.clear("arn")

    assert missing.mark_missing("arn") == 0


def test_a_gap_longer_than_the_grace_time_begins_anew() -> None:
    clock = FakeClock()
    missing = MissingTasks(clock, grace=600.0)
    missing.mark_missing("arn")

    clock.advance(601)

    assert missing.mark_missing("arn") == 0


def test_with_a_short_grace_time_the_gap_may_still_be_a_minute() -> None:
    clock = FakeClock()
    missing = MissingTasks(clock, grace=1.0)
    missing.mark_missing("arn")

    clock.advance(59)

    assert missing.mark_missing("arn") == 59


def test_what_was_not_asked_for_lately_is_forgotten() -> None:
    clock = FakeClock()
    missing = MissingTasks(clock, grace=600.0)
    missing.mark_missing("old")
    clock.advance(601)
    missing.mark_missing("new")

    missing.forget_old()

    assert len(missing) == 1
