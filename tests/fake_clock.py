"""The clock of every test that does not run on real time."""

from __future__ import annotations

#: A multiple of 1/8: sums of eighths of a second from here are exact. Seconds since the epoch.
START = 1_800_000_000.0


class FakeClock:
    """A clock that stands still until the test moves it. Call it, or read `now`, for the time in seconds."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        """Stand in for time.sleep: time passes at once."""
        assert seconds > 0
        self.advance(seconds)
