"""Durations and times: parsed from options (`90s`, `30m`, `2h`, `7d`, RFC 3339) and formatted for people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from ecs_queue import durations

if TYPE_CHECKING:
    _ParamType = click.ParamType[float]
    _RangeType = click.ParamType[tuple[float, float]]
else:
    _ParamType = _RangeType = click.ParamType

#: Longer than any time that a datetime has.
_MAX_SHOWN_SECONDS = 1e12


@dataclass(frozen=True)
class TimeBound:
    """A point in time: `age` seconds ago, or `timestamp` in seconds since the epoch."""

    age: float | None = None
    timestamp: float = 0.0

    def moment(self) -> timedelta | datetime:
        """Return how long ago it is, or when it is."""
        return datetime.fromtimestamp(self.timestamp, UTC) if self.age is None else timedelta(seconds=self.age)

    def resolve(self, now: float) -> float:
        """Return seconds since the epoch."""
        return self.timestamp if self.age is None else now - self.age


class Duration(_ParamType):
    """The type of an option that takes a duration, in seconds."""

    name = "duration"

    def __init__(self, min: float = 0.0, min_open: bool = False, max: float = durations.MAX_SECONDS) -> None:
        self._min, self._min_open, self._max = min, min_open, max

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click."""
        seconds = durations.parse_duration(value)
        if seconds is None or not self._min <= seconds <= self._max or (self._min_open and seconds == self._min):
            bound = f"above {self._min:g}" if self._min_open else f"of at least {self._min:g} s"
            self.fail(f"expected a duration {bound}, such as {durations.EXAMPLES}, found {value!r}", param, ctx)
        return seconds


class DurationRange(_RangeType):
    """The type of an option that takes a duration or a range of them, such as `30` or `20-60`, in seconds."""

    name = "range of durations"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """See click."""
        low, _, high = str(value).partition("-")
        bounds = (Duration().convert(low, param, ctx), Duration().convert(high or low, param, ctx))
        if bounds[0] > bounds[1]:
            self.fail(f"expected the shorter duration first, such as 20-60, found {value!r}", param, ctx)
        return bounds


#: A duration above 0.
POSITIVE_DURATION = Duration(min_open=True)


def parse_age(text: str) -> float:
    """Return seconds. For the `type` of a click option."""
    seconds = _to_age(text)
    if seconds is None:
        raise click.BadParameter(f"expected an age such as 90s, 30m, 2h or 7d, found {text!r}")
    return seconds


def parse_time_bound(text: str) -> TimeBound:
    """Parse an age, or a time with its UTC offset. For the `type` of a click option."""
    seconds = _to_age(text)
    if seconds is not None:
        return TimeBound(age=seconds)
    try:
        moment = datetime.fromisoformat(text.upper())  # RFC 3339 has `t` and `z`, too
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        expected = "an age such as 90s, 30m, 2h or 7d, or a time such as 2025-01-31T12:00:00Z"
        raise click.BadParameter(f"expected {expected}, found {text!r}")
    try:
        return TimeBound(timestamp=moment.timestamp())
    except (OverflowError, OSError):
        raise click.BadParameter(f"expected a time between the years 1 and 9999 in UTC, found {text!r}") from None


def format_duration(seconds: float) -> str:
    """Return `0.42 s`, `12.3 s`, `3 min 20 s`, `2 h 5 min` or `3 d 4 h`."""
    seconds = min(max(0.0, seconds), _MAX_SHOWN_SECONDS)
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, smaller, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError("unreachable")


def format_ago(timestamp: float, now: float) -> str:
    """Return how long ago a time was. Both are seconds since the epoch."""
    return f"{format_duration(now - timestamp)} ago"


def format_timestamp(epoch_seconds: float | None) -> str | None:
    """Return RFC 3339 in UTC, as in result lines; None for None and 0, which mean never."""
    from ecs_queue.messages.result import to_datetime  # slow, and no help needs it

    moment = to_datetime(epoch_seconds)
    return moment.isoformat()[:-6] + "Z" if moment else None


def format_timestamp_ms(epoch_seconds: float) -> str:
    """Return RFC 3339 in UTC with milliseconds."""
    from ecs_queue.messages.result import to_datetime  # slow, and no help needs it

    moment = to_datetime(epoch_seconds) or datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def _to_age(text: str) -> float | None:
    seconds = durations.parse_duration(text)
    return seconds if seconds is None or seconds <= durations.MAX_SECONDS * 10 else None
