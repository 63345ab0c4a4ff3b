"""For how long ECS has not shown a task, as far as this worker has looked."""

from __future__ import annotations

from collections.abc import Callable

#: Two looks of one worker at a task may be so far apart, other workers take the looks in between. Seconds.
_LEAST_GAP = 60.0


class Missing:
    """By ARN. One thread uses it.

    A task counts as missing since the first of a row of looks that did not show it. Where two of them are further
    apart than the grace time, another worker may have seen it in between: the row begins anew.
    """

    def __init__(self, monotonic: Callable[[], float], grace: float) -> None:
        self._monotonic = monotonic
        self._longest_gap = max(grace, _LEAST_GAP)
        self._looks: dict[str, tuple[float, float]] = {}  # ARN -> first and last look that did not show it

    def not_shown(self, arn: str) -> float:
        """ECS did not show it; seconds since it did not for the first time."""
        now = self._monotonic()
        first, last = self._looks.get(arn, (now, now))
        if now - last > self._longest_gap:
            first = now
        self._looks[arn] = first, now
        return now - first

    def shown(self, arn: str) -> None:
        """ECS has shown it, or nobody asks for it any more."""
        self._looks.pop(arn, None)

    def forget_old(self) -> None:
        """Drop what another worker follows by now."""
        limit = self._monotonic() - self._longest_gap
        for arn in [arn for arn, (_, last) in self._looks.items() if last < limit]:
            del self._looks[arn]

    def __len__(self) -> int:
        return len(self._looks)
