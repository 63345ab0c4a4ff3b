"""What every source of a container's log gives: its lines in their order, page by page."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ecs_queue.errors import PermanentError, RetryableError


class LogUnavailable(PermanentError):  # noqa: N818
    """The container's log cannot be read."""


class LogBusy(RetryableError):  # noqa: N818
    """The container's log cannot be read at the moment; the same page can be read later."""


class LogLine(NamedTuple):
    """One line without its line break. `at`: seconds since the epoch, None where the source keeps no times."""

    at: float | None
    text: str


class Page(NamedTuple):
    """Lines that follow those of the page before. `is_last`: there are no more at this moment."""

    lines: list[LogLine]
    is_last: bool


class LogReader(Protocol):
    """Reads one container's log once, from its start, or from the lines that were asked for when it was opened.

    Attributes:
        source: Names the log for people.
        settle_seconds: How long after the container's end its last lines may come.
        missing: What the last `read` did not find, for people, although it may come later; "" if it found the log.
    """

    source: str
    settle_seconds: float
    missing: str

    def read(self) -> Page:
        """Return the next page; without lines when there are none yet.

        Raises:
            LogUnavailable: it cannot be read, and a repetition would not help.
            LogBusy: it cannot be read now; the next call reads the same page.
        """
        ...

    def read_rest(self) -> list[LogLine]:
        """Return what was written since, to be called once after the last page: a line that has no line break."""
        ...
