"""A log is followed until its container has ended and its last lines have come; every wait is bounded."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ecs_queue.container_logs.base import LogBusy, LogLine, LogUnavailable, Page
from ecs_queue.container_logs.follow import follow_log, read_log


class ScriptedLog:
    """Gives these pages, then empty ones. An error is raised."""

    source, missing = "a script", ""

    def __init__(self, pages: Sequence[Page | Exception], settle_seconds: float = 0.0, rest: str = "") -> None:
        self.settle_seconds = settle_seconds
        self._pages = list(pages)
        self._rest = rest

    def read(self) -> Page:
        page = self._pages.pop(0) if self._pages else Page([], True)
        if isinstance(page, Exception):
            raise page
        return page

    def read_rest(self) -> list[LogLine]:
        return [LogLine(None, self._rest)] if self._rest else []


class Container:
    """Ends after a number of seconds of waiting."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self._ends_at = seconds

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return self.now >= self._ends_at

    def clock(self) -> float:
        return self.now


def page(*texts: str, is_last: bool = True) -> Page:
    return Page([LogLine(None, text) for text in texts], is_last)


def texts(lines: object) -> list[str]:
    return [line.text for line in lines]  # type: ignore[attr-defined]


def test_the_lines_that_come_after_the_end_are_waited_for() -> None:
    pages = [page(), page("one"), *[page()] * 5, page("late"), page("later")]
    container = Container(seconds=1.0)
    log = ScriptedLog(pages, settle_seconds=20.0, rest="no line break")
    assert texts(follow_log(log, container.wait, container.clock)) == ["one", "late", "later", "no line break"]
    assert 21.0 <= container.now < 30.0


def test_the_pauses_grow_while_nothing_comes_and_full_pages_are_read_at_once() -> None:
    container = Container(seconds=9.0)
    log = ScriptedLog([page("a", is_last=False), page("b"), *[page()] * 5])
    assert texts(follow_log(log, container.wait, container.clock)) == ["a", "b"]
    assert container.waits[:6] == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_a_busy_source_is_read_again_and_nothing_is_lost() -> None:
    container = Container(seconds=1.0)
    log = ScriptedLog([page("a", is_last=False), LogBusy("throttled"), LogBusy("throttled"), page("b")])
    assert texts(read_log(log, container.wait)) == ["a", "b"]


def test_a_source_that_stays_busy_ends_with_a_sentence() -> None:
    container = Container(seconds=1e9)
    with pytest.raises(LogUnavailable, match="throttled; it failed 12 times in a row, try again later"):
        list(follow_log(ScriptedLog([LogBusy("throttled")] * 99), container.wait, container.clock))
    assert container.now < 30.0


def test_empty_pages_before_others_are_passed_over_and_endless_ones_end() -> None:
    pages = [*[page(is_last=False)] * 3, page("a", is_last=False), page("b")]
    assert texts(read_log(ScriptedLog(pages), Container(1.0).wait)) == ["a", "b"]
    assert texts(read_log(ScriptedLog([page(is_last=False)] * 5000), Container(1.0).wait)) == []


def test_empty_pages_without_end_end_with_the_container() -> None:
    container = Container(seconds=1.0)
    pages = [page("a"), *[page(is_last=False)] * 5000]
    log = ScriptedLog(pages, settle_seconds=5.0, rest="no line break")
    assert texts(follow_log(log, container.wait, container.clock)) == ["a", "no line break"]
    assert container.now < 10.0
