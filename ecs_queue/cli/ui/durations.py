"""Ages and times on the command line: `90s`, `30m`, `2h`, `7d`, and RFC 3339. For the `type` of an option."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

import click

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)?", re.IGNORECASE)
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


@dataclass(frozen=True)
class TimeBound:
    """A moment: `age` seconds ago, or `moment` in seconds since the epoch."""

    age: float | None = None
    timestamp: float = 0.0

    def resolve(self, now: float) -> float:
        """Seconds since the epoch."""
        return self.timestamp if self.age is None else now - self.age


def parse_duration(text: str) -> float:
    """Seconds."""
    seconds = _to_seconds(text)
    if seconds is None:
        raise click.BadParameter(f"expected an age such as 90s, 30m, 2h or 7d, found {text!r}")
    return seconds


def parse_time_bound(text: str) -> TimeBound:
    """An age, or a time with its offset."""
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


def _to_seconds(text: str) -> float | None:
    found = _DURATION.fullmatch(text.strip())
    return float(found[1]) * _UNITS[(found[2] or "s").lower()] if found else None
