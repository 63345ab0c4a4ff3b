"""The charts of the last hour as coordinates for inline SVG, and as rows of a table. Pure.

A chart is `WIDTH` by `HEIGHT` units, whatever its size on the page: its labels are outside, so that they stay readable
on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from ecs_queue.journal.last_hour import MINUTE, MINUTES, HourCounts, MinuteCounts

WIDTH, HEIGHT = 600, 100
_STEP = WIDTH / MINUTES
#: A bar is never lower: one failure among a thousand ends must be seen.
_MIN_BAR = 3.0
#: The largest number of labels below a chart.
_LABELS = 5


@dataclass(frozen=True)
class Series:
    """The values of one name; None where there is none.

    Attributes:
        style: the class of its lines, bars and key.
        lines: points of each unbroken line; "" of a chart of bars.
        bars: x, y, width and height of each bar.
    """

    name: str
    style: str
    values: Sequence[float | None]
    lines: Sequence[str] = ()
    bars: Sequence[tuple[float, float, float, float]] = ()


@dataclass(frozen=True)
class Chart:
    """One chart: its name for links, a title, the label of its highest line, a text of what it shows, its series."""

    name: str
    title: str
    top: str
    half: str
    text: str
    series: Sequence[Series]


@dataclass(frozen=True)
class HourView:
    """The charts, the labels below each, the rows of the table (newest first), and when the counts begin; "": before.

    A row has the minute, and then submitted, launched, succeeded, failed, the median and the 95th percentile of waits.
    """

    charts: Sequence[Chart]
    labels: Sequence[str]
    rows: Sequence[tuple[str, ...]]
    begins: str
    unverified: int


def build_hour_view(counts: HourCounts, duration: Callable[[float], str]) -> HourView:
    """Return what the page shows of the counts; `duration` formats seconds."""
    minutes = counts.minutes
    times = [_clock(counts.first_minute + number) for number in range(len(minutes))]
    known = [number for number, each in enumerate(minutes) if each is not None]
    return HourView(
        charts=[
            _draw_lines(
                "requests",
                "Requests a minute",
                [
                    ("submitted", "one", _values(minutes, lambda each: each.submitted)),
                    ("launched", "two", _values(minutes, lambda each: each.launched)),
                ],
                times,
                _number,
            ),
            _draw_bars(
                "ends",
                "Ends a minute",
                [
                    ("succeeded", "good", _values(minutes, lambda each: each.succeeded)),
                    ("failed", "bad", _values(minutes, lambda each: each.failed)),
                ],
                times,
            ),
            _draw_lines(
                "waits",
                "Wait for a launch",
                [
                    ("median", "one", _values(minutes, lambda each: _quantile(each.waits, 0.5))),
                    ("95th percentile", "two", _values(minutes, lambda each: _quantile(each.waits, 0.95))),
                ],
                times,
                duration,
            ),
        ],
        labels=[times[round(n * (len(times) - 1) / (_LABELS - 1))] for n in range(_LABELS)],
        rows=list(_rows(minutes, times, duration))[::-1],
        begins=times[known[0]] if known and known[0] else "",
        unverified=counts.unverified,
    )


def format_rate(rate: float) -> str:
    """Return `12/s`, `0.25/s` or, for none, `0/s`."""
    return f"{rate:.0f}/s" if rate >= 9.95 or not rate else f"{rate:.2g}/s"


def _values(
    minutes: Sequence[MinuteCounts | None], value: Callable[[MinuteCounts], float | None]
) -> list[float | None]:
    return [None if each is None else value(each) for each in minutes]


def _quantile(waits: Sequence[float], share: float) -> float | None:
    """The smallest wait that this share of them does not exceed; None without any."""
    if not waits:
        return None
    return median(waits) if share == 0.5 else sorted(waits)[math.ceil(share * len(waits)) - 1]


def _draw_lines(
    name: str,
    title: str,
    values: Sequence[tuple[str, str, Sequence[float | None]]],
    times: Sequence[str],
    label: Callable[[float], str],
) -> Chart:
    top = _round_up(max((value for _, _, each in values for value in each if value is not None), default=0.0))
    series = [Series(key, style, each, lines=list(_lines(each, top))) for key, style, each in values]
    texts = [_describe(key, each, times, label) for key, _, each in values]
    return Chart(name, title, label(top), label(top / 2), " ".join(texts), series)


def _draw_bars(
    name: str, title: str, values: Sequence[tuple[str, str, Sequence[float | None]]], times: Sequence[str]
) -> Chart:
    """Bars that stand on those of the series before."""
    sums = [sum(value or 0.0 for value in column) for column in zip(*(each for _, _, each in values), strict=True)]
    top = _round_up(max(sums, default=0.0))
    below = [0.0] * len(times)
    series = []
    for key, style, each in values:
        bars = []
        for number, value in enumerate(each):
            if value:
                height = max(_MIN_BAR, HEIGHT * value / top)
                bars.append((_x(number) - 0.4 * _STEP, max(0.0, HEIGHT - below[number] - height), 0.8 * _STEP, height))
                below[number] += height
        series.append(Series(key, style, each, bars=bars))
    texts = [_describe(key, each, times, _number) for key, _, each in values]
    return Chart(name, title, _number(top), _number(top / 2), " ".join(texts), series)


def _lines(values: Sequence[float | None], top: float) -> Iterator[str]:
    """Yield the points of each line; that of a value without neighbours is as long as a minute."""
    points: list[tuple[float, float]] = []
    for number, value in enumerate([*values, None]):
        if value is not None:
            points.append((_x(number), HEIGHT * (1 - value / top)))
        elif points:
            (x, y), *rest = points
            shown = points if rest else [(x - 0.5 * _STEP, y), (x + 0.5 * _STEP, y)]
            yield " ".join(f"{x:g},{y:.1f}" for x, y in shown)
            points = []


def _x(number: int) -> float:
    return (number + 0.5) * _STEP


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 10, 20, 40 ...: their halves are as round."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 4, 10) if value <= factor * power * (1 + 1e-9))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _describe(key: str, values: Sequence[float | None], times: Sequence[str], label: Callable[[float], str]) -> str:
    """Return a sentence for who does not see the chart."""
    found = [(value, time) for value, time in zip(values, times, strict=True) if value is not None]
    if not any(value for value, _ in found):
        return f"{key.capitalize()}: none."
    highest, at = max(found)
    latest, time = found[-1]
    return f"{key.capitalize()}: at most {label(highest)}, at {at}; {label(latest)} at {time}."


def _rows(
    minutes: Sequence[MinuteCounts | None], times: Sequence[str], duration: Callable[[float], str]
) -> Iterator[tuple[str, ...]]:
    """Yield a row for each minute in which something was counted."""
    for each, time in zip(minutes, times, strict=True):
        if each is None:
            continue
        numbers = (each.submitted, each.launched, each.succeeded, each.failed)
        if any(numbers):
            waits = [_quantile(each.waits, share) for share in (0.5, 0.95)]
            yield (time, *map(_number, numbers), *("" if wait is None else duration(wait) for wait in waits))


def _clock(minute: int) -> str:
    return f"{datetime.fromtimestamp(minute * MINUTE, UTC):%H:%M}"
