"""The result of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Measurement(NamedTuple):
    """One line of the table. `ratio` compares two sides of the same run (more is better); the baseline keeps it."""

    name: str
    value: str
    target: str = ""
    ratio: float | None = None


def median_and_range(values: Sequence[float], digits: int = 2) -> str:
    """Return the median of several rounds with their minimum and maximum."""
    middle, low, high = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"
