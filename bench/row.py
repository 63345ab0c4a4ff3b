"""What a benchmark answers."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table. `ratio`: ours beside another's in the same run, more is better; kept in the baseline."""

    what: str
    figure: str
    aim: str = ""
    ratio: float | None = None
