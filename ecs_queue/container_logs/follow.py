"""Reads a log to its end, or follows it until the container has ended and its last lines have come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from ecs_queue.container_logs.base import LogBusy, LogLine, LogReader, LogUnavailable

Result = TypeVar("Result")

#: Seconds between two reads: the shortest after new lines, doubled up to the longest while none come. GetLogEvents
#: allows 10 to 25 calls a second for an account and Region.
_MIN_PAUSE, _MAX_PAUSE = 0.2, 2.0
#: Consecutive failures after which reading ends: with doubled pauses about 20 s.
_MAX_FAILURES = 12
#: CloudWatch may give empty pages before others: it searches a long stream piece by piece.
_MAX_EMPTY_PAGES = 1000


def follow_log(reader: LogReader, wait: Callable[[float], bool], clock: Callable[[], float]) -> Iterator[LogLine]:
    """Yield the lines as they come. Ends when the container has ended and its last lines have come.

    Args:
        reader: An open log.
        wait: Waits for at most the given seconds, and returns whether the container has ended.
        clock: A monotonic clock in seconds.

    Raises:
        LogUnavailable: It cannot be read, or could not be read for a while.
    """
    pause, ended_at = _MIN_PAUSE, None
    while True:
        page = retry_while_busy(reader.read, wait)
        yield from page.lines
        if page.lines and not page.is_last:
            continue
        is_settled = ended_at is not None and clock() - ended_at >= reader.settle_seconds
        if not page.lines and is_settled:
            # Of a stream whose events have expired CloudWatch gives empty pages without end; `read_log` bounds them.
            yield from reader.read_rest() if page.is_last else read_log(reader, wait)
            return
        pause = min(pause * 2, _MAX_PAUSE) if page.is_last and not page.lines else _MIN_PAUSE
        if wait(pause) and ended_at is None:
            ended_at = clock()


def read_log(reader: LogReader, wait: Callable[[float], object]) -> Iterator[LogLine]:
    """Yield the lines that are there now; arguments and errors are those of `follow_log`."""
    empty_pages = 0
    while empty_pages < _MAX_EMPTY_PAGES:
        page = retry_while_busy(reader.read, wait)
        yield from page.lines
        if page.is_last:
            break
        empty_pages = 0 if page.lines else empty_pages + 1
    yield from reader.read_rest()


def retry_while_busy(call: Callable[[], Result], wait: Callable[[float], object]) -> Result:
    """Return what `call` returns; LogBusy is retried for about 20 s, then it is LogUnavailable."""
    pause = _MIN_PAUSE
    for failures in range(1, _MAX_FAILURES + 1):
        try:
            return call()
        except LogBusy as error:
            if failures == _MAX_FAILURES:
                raise LogUnavailable(f"{error}; it failed {failures} times in a row, try again later") from error
            wait(pause)
            pause = min(pause * 2, _MAX_PAUSE)
    raise AssertionError("unreachable")
