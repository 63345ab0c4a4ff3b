"""Durations and times: parsed from options (`90s`, `30m`, `2h`, `7d`, RFC 3339) and formatted for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import click

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)?", re.IGNORECASE)
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


@dataclass(frozen=True)
class TimeBound:
    """A point in time: `age` seconds ago, or `timestamp` in seconds since the epoch."""

    age: float | None = None
    timestamp: float = 0.0

    def resolve(self, now: float) -> float:
        """Return seconds since the epoch."""
        return self.timestamp if self.age is None else now - self.age


def parse_duration(text: str) -> float:
    """Return seconds. For the `type` of a click option."""
    seconds = _to_seconds(text)
    if seconds is None:
        raise click.BadParameter(f"expected an age such as 90s, 30m, 2h or 7d, found {text!r}")
    return seconds


def parse_time_bound(text: str) -> TimeBound:
    """Parse an age, or a time with its UTC offset. For the `type` of a click option."""
    seconds = _to_seconds(text)
    if seconds is not None:
        return TimeBound(age=seconds)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        expected = "an age such as 90s, 30m, 2h or 7d, or a time such as 2025-01-31T12:00:00Z"
        raise click.BadParameter(f"expected {expected}, found {text!r}")
    return TimeBound(timestamp=moment.timestamp())


def format_duration(seconds: float) -> str:
    """Return `0.42 s`, `12.3 s`, `3 min 20 s`, `2 h 5 min` or `3 d 4 h`."""
    seconds = max(0.0, seconds)
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
    return datetime.fromtimestamp(round(epoch_seconds, 3), UTC).isoformat()[:-6] + "Z" if epoch_seconds else None


def format_timestamp_ms(epoch_seconds: float) -> str:
    """Return RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(epoch_seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _to_seconds(text: str) -> float | None:
    found = _DURATION.fullmatch(text.strip())
    return float(found[1]) * _UNITS[(found[2] or "s").lower()] if found else None
