"""For how long ECS has not shown a task, as far as this worker has looked."""

from __future__ import annotations

from collections.abc import Callable

#: Two looks of one worker at a task may be so far apart, other workers take the looks in between. Seconds.
_MIN_GAP = 60.0


class MissingTasks:
    """By ARN. One thread uses it.

    A task counts as missing since the first of a row of looks that did not show it. Where two of them are further
    apart than the grace time, another worker may have seen it in between: the row begins anew.
    """

    def __init__(self, monotonic: Callable[[], float], grace: float) -> None:
        self._monotonic = monotonic
        self._max_gap = max(grace, _MIN_GAP)
        self._missing_spans: dict[str, tuple[float, float]] = {}  # ARN -> first and last look that did not show it

    def mark_missing(self, arn: str) -> float:
        """ECS did not show it; seconds since it did not for the first time."""
        now = self._monotonic()
        first, last = self._missing_spans.get(arn, (now, now))
        if now - last > self._max_gap:
            first = now
        self._missing_spans[arn] = first, now
        return now - first

    def clear(self, arn: str) -> None:
        """ECS has shown it, or nobody asks for it any more."""
        self._missing_spans.pop(arn, None)

    def forget_old(self) -> None:
        """Drop what another worker follows by now."""
        limit = self._monotonic() - self._max_gap
        for arn in [arn for arn, (_, last) in self._missing_spans.items() if last < limit]:
            del self._missing_spans[arn]

    def __len__(self) -> int:
        return len(self._missing_spans)
