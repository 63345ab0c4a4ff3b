"""For how long ECS has not shown a task."""

from __future__ import annotations

from ecs_queue.launcher.missing import Missing
from tests.launcher.lab import Clock


def test_it_counts_from_the_first_look_that_did_not_show_it() -> None:
    clock = Clock()
    missing = Missing(clock, grace=600.0)
    assert missing.not_shown("arn") == 0

    clock.advance(10)
    missing.not_shown("arn")
    clock.advance(15)

    assert missing.not_shown("arn") == 25


def test_a_look_that_shows_it_begins_anew() -> None:
    clock = Clock()
    missing = Missing(clock, grace=600.0)
    missing.not_shown("arn")
    clock.advance(10)

    missing.shown("arn")

    assert missing.not_shown("arn") == 0


def test_a_gap_longer_than_the_grace_time_begins_anew() -> None:
    clock = Clock()
    missing = Missing(clock, grace=600.0)
    missing.not_shown("arn")

    clock.advance(601)

    assert missing.not_shown("arn") == 0


def test_with_a_short_grace_time_the_gap_may_still_be_a_minute() -> None:
    clock = Clock()
    missing = Missing(clock, grace=1.0)
    missing.not_shown("arn")

    clock.advance(59)

    assert missing.not_shown("arn") == 59


def test_what_was_not_asked_for_lately_is_forgotten() -> None:
    clock = Clock()
    missing = Missing(clock, grace=600.0)
    missing.not_shown("old")
    clock.advance(601)
    missing.not_shown("new")

    missing.forget_old()

    assert len(missing) == 1
