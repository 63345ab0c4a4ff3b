"""Ages and times on the command line."""

from __future__ import annotations

import click
import pytest

from ecs_queue.cli.ui.durations import TimeBound, parse_age, parse_time_bound


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
    assert parse_time_bound("2001-09-09T03:46:40+02:00").resolve(5.0) == 1e9


def test_a_time_without_its_offset_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="2001-09-09T01:46:40"):
        parse_time_bound("2001-09-09T01:46:40")
