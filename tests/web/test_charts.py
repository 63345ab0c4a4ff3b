"""The charts of the last hour: coordinates, texts for readers of the screen, and the table."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ecs_queue.cli.ui.durations import format_duration
from ecs_queue.journal.last_hour import MINUTES, HourCounts, MinuteCounts
from ecs_queue.web.charts import HEIGHT, WIDTH, HourView, build_hour_view, format_rate

#: 2026-11-29 12:00, in minutes since the epoch.
FIRST = 29_932_560


def view(minutes: Mapping[int, MinuteCounts], known_from: int = 0, unverified: int = 0) -> HourView:
    """Show an hour from 12:00 with these minutes of it."""
    counts = [minutes.get(n, MinuteCounts()) if n >= known_from else None for n in range(MINUTES)]
    return build_hour_view(HourCounts(FIRST, counts, unverified), format_duration)


def test_a_line_has_a_point_for_each_minute_and_the_largest_value_below_the_top() -> None:
    requests, _, _ = view({0: MinuteCounts(submitted=3), 59: MinuteCounts(submitted=4)}).charts
    assert (requests.top, requests.half) == ("4", "2")
    submitted, launched = requests.series
    (points,) = submitted.lines
    coordinates = [tuple(map(float, point.split(","))) for point in points.split()]
    assert len(coordinates) == MINUTES
    assert [*coordinates[:2], coordinates[59]] == [(5, 25), (15, HEIGHT), (WIDTH - 5, 0)]
    assert launched.lines == [" ".join(f"{10 * n + 5},100.0" for n in range(MINUTES))]


@pytest.mark.parametrize(("highest", "top"), [(0, "1"), (1, "1"), (3, "4"), (5, "10"), (11, "20"), (999, "1,000")])
def test_the_scale_ends_at_a_round_number(highest: int, top: str) -> None:
    assert view({7: MinuteCounts(submitted=highest)}).charts[0].top == top


def test_minutes_before_the_counts_begin_have_neither_lines_nor_bars_nor_rows() -> None:
    shown = view({n: MinuteCounts(submitted=1, succeeded=1) for n in range(MINUTES)}, known_from=50)
    requests, ends, _ = shown.charts
    assert len(requests.series[0].lines[0].split()) == 10
    assert len(ends.series[0].bars) == 10
    assert len(shown.rows) == 10
    assert shown.begins == "12:50"
    assert view({}).begins == ""


def test_failures_stand_on_successes_and_are_never_too_low_to_be_seen() -> None:
    _, ends, _ = view({0: MinuteCounts(succeeded=999, failed=1), 1: MinuteCounts(failed=1000)}).charts
    succeeded, failed = ends.series
    ((_, y, _, height),) = succeeded.bars
    (on_top, alone) = failed.bars
    assert (round(y, 1), round(height, 1)) == (0.1, 99.9)
    assert on_top[3] == 3.0
    assert on_top[1] >= 0
    assert alone[1:] == (0, 8, HEIGHT)


def test_a_wait_without_neighbours_is_a_short_line() -> None:
    _, _, waits = view({10: MinuteCounts(launched=2, waits=[1.0, 3.0])}).charts
    half, most = waits.series
    assert half.lines == ["100,50.0 110,50.0"]
    assert most.lines == ["100,25.0 110,25.0"]
    assert (waits.top, waits.half) == ("4.00 s", "2.00 s")


def test_the_table_has_the_minutes_with_something_newest_first() -> None:
    shown = view({
        1: MinuteCounts(submitted=1200),
        30: MinuteCounts(launched=100, succeeded=2, failed=3, waits=[float(n) for n in range(1, 101)]),
    })  # fmt: skip
    assert shown.rows == [
        ("12:30", "0", "100", "2", "3", "50.5 s", "1 min 35 s"),
        ("12:01", "1,200", "0", "0", "0", "", ""),
    ]
    assert shown.labels == ["12:00", "12:15", "12:30", "12:44", "12:59"]


def test_the_text_of_a_chart_says_what_it_shows() -> None:
    requests, ends, waits = view({5: MinuteCounts(submitted=1200, waits=[2.0])}).charts
    assert requests.text.startswith("Submitted: at most 1,200, at 12:05; 0 at 12:59.")
    assert ends.text == "Succeeded: none. Failed: none."
    assert waits.text.startswith("Median: at most 2.00 s, at 12:05; 2.00 s at 12:05.")


def test_a_rate_has_two_digits() -> None:
    assert [format_rate(rate) for rate in (0, 0.0333, 0.5, 9.94, 9.97, 1234.5)] == [
        "0/s", "0.033/s", "0.5/s", "9.9/s", "10/s", "1234/s",
    ]  # fmt: skip
