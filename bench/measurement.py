"""What a benchmark answers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Measurement(NamedTuple):
    """One line of the table. `ratio`: ours beside another's in the same run, more is better; kept in the baseline."""

    name: str
    value: str
    target: str = ""
    ratio: float | None = None


def median_and_range(values: Sequence[float], digits: int = 2) -> str:
    """The median of several turns, and between what they lie."""
    middle, least, most = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})"
