"""Durations as people write them: a number of seconds, or `90s`, `30m`, `2h`, `7d`, `1w`. One parser for all of them.

Options, configuration, task lines and the Python client take the same durations.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

#: What is expected, for the sentences of errors.
EXAMPLES = "90, 90s, 30m, 2h or 7d"
#: The largest number that an option or a key may have, far above every sane one: larger ones overflow or wait for ever.
MAX_NUMBER = 1e9
#: The longest duration that a request may have; JSON has no infinity.
MAX_SECONDS = MAX_NUMBER

_DURATION = re.compile(r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+)\s*(s|m|min|h|d|w)?", re.IGNORECASE | re.ASCII)
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def parse_duration(value: object) -> float | None:
    """Return a finite number of seconds >= 0, also of a timedelta; None for what is no duration."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str):
        found = _DURATION.fullmatch(value.strip())
        seconds = float(found[1]) * _UNITS[(found[2] or "s").lower()] if found else math.nan
    elif isinstance(value, int | float) and not isinstance(value, bool):
        # A whole number that is too long for a float has thousands of digits.
        seconds = float(value) if abs(value) <= 1e300 else math.inf
    else:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
