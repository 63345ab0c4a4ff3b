"""Measures for how long ECS has not shown a task, as far as this worker has polled it."""

from __future__ import annotations

from collections.abc import Callable

#: Two polls of a task by one worker may be this far apart; other workers make the polls in between. Seconds.
_MIN_GAP = 60.0


class MissingTasks:
    """Tasks that ECS does not show, by ARN. One thread uses it.

    A task is missing since the first of the consecutive polls that did not show it. If two polls are further apart than
    the grace time, another worker may have seen the task in between: counting starts again.
    """

    def __init__(self, monotonic: Callable[[], float], grace: float) -> None:
        self._monotonic = monotonic
        self._max_gap = max(grace, _MIN_GAP)
        self._missing_spans: dict[str, tuple[float, float]] = {}  # ARN -> first and last poll that did not show it

    def mark_missing(self, arn: str) -> float:
        """Note that ECS did not show the task; return the seconds since the first time."""
        now = self._monotonic()
        first, last = self._missing_spans.get(arn, (now, now))
        if now - last > self._max_gap:
            first = now
        self._missing_spans[arn] = first, now
        return now - first

    def clear(self, arn: str) -> None:
        """Note that ECS has shown the task, or that it is not polled any more."""
        self._missing_spans.pop(arn, None)

    def forget_old(self) -> None:
        """Drop tasks that another worker follows by now."""
        limit = self._monotonic() - self._max_gap
        self._missing_spans = {arn: span for arn, span in self._missing_spans.items() if span[1] >= limit}

    def __len__(self) -> int:
        return len(self._missing_spans)
