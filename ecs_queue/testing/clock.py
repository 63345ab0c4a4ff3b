"""A clock that stands still until it is moved."""

from __future__ import annotations


class FakeClock:
    """Call it for the time in seconds since the epoch. Nothing but `advance` and a waiting test moves it."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        """Start at this time."""
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        if seconds < 0:
            raise ValueError(f"expected a time that passes, found {seconds}")
        self.now += seconds
