"""Ages and times on the command line."""

from __future__ import annotations

import click
import pytest

from ecs_queue.cli.ui.durations import (
    DurationRange,
    TimeBound,
    format_ago,
    format_timestamp,
    format_timestamp_ms,
    parse_age,
    parse_time_bound,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("30min", 1800), ("2h", 7200), ("7D", 604800), (" 1w ", 604800)],
)
def test_an_age_is_seconds(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds
    assert parse_time_bound(text).resolve(1e9) == 1e9 - seconds


@pytest.mark.parametrize("text", ["", "-1s", "2x", "h", "1h30m", "yesterday", "nan"])
def test_what_is_no_age_is_refused_with_what_was_expected(text: str) -> None:
    for parse in (parse_age, parse_time_bound):
        with pytest.raises(click.BadParameter, match="expected an age such as 90s, 30m, 2h or 7d"):
            parse(text)


def test_a_time_with_its_offset_is_a_moment() -> None:
    assert parse_time_bound("2001-09-09T01:46:40Z") == TimeBound(timestamp=1e9)
    assert parse_time_bound("2001-09-09t01:46:40z") == TimeBound(timestamp=1e9)
    assert parse_time_bound("2001-09-09T03:46:40+02:00").resolve(5.0) == 1e9


def test_a_time_without_its_offset_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="2001-09-09T01:46:40"):
        parse_time_bound("2001-09-09T01:46:40")


@pytest.mark.parametrize(
    ("text", "bounds"), [("30", (30.0, 30.0)), ("20-60", (20.0, 60.0)), ("30s-1.5m", (30.0, 90.0)), ("0", (0.0, 0.0))]
)
def test_a_range_of_durations_is_its_bounds_in_seconds(text: str, bounds: tuple[float, float]) -> None:
    assert DurationRange().convert(text, None, None) == bounds


@pytest.mark.parametrize("text", ["", "-", "60-20", "-5", "20-60-90", "soon"])
def test_what_is_no_range_of_durations_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected"):
        DurationRange().convert(text, None, None)


@pytest.mark.parametrize("timestamp", [2e12, float("inf"), float("-inf"), -1e300])
def test_a_time_that_has_no_date_is_shown_all_the_same(timestamp: float) -> None:
    """A record may hold milliseconds: one of them must not end a list."""
    assert format_timestamp(timestamp) in {"9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"}
    assert format_timestamp_ms(timestamp).endswith(".000Z")
    assert format_ago(timestamp, 1e9).endswith(" ago")
