"""The output of one request is cut out of a runner's log."""

from __future__ import annotations

import pytest

from ecs_queue.cli.ui.runner_lines import lines_of_launch
from ecs_queue.container_logs.base import LogLine
from ecs_queue.runner import log_lines

LOG = [
    log_lines.format_line(log_lines.LogLine("a", 1, 1)),
    "of a",
    "unfinished" + log_lines.format_line(log_lines.LogLine("a", 1, 1, 0)),
    "between",
    log_lines.format_line(log_lines.LogLine("b", 2, 2)),
    "of b",
    "ecs-queue runner: another sentence",
    log_lines.format_line(log_lines.LogLine("b", 2, 2, 3, True)),
    log_lines.format_line(log_lines.LogLine("a", 2, 3)),
    "of a again",
]


@pytest.mark.parametrize(
    ("request_id", "launch", "expected"),
    [
        ("a", 1, ["of a", "unfinished"]),
        ("b", 2, ["of b", "ecs-queue runner: another sentence"]),
        ("a", 2, ["of a again"]),
        ("c", 1, []),
    ],
)
def test_between_the_start_and_the_end_of_a_launch_are_its_lines(
    request_id: str, launch: int, expected: list[str]
) -> None:
    lines = (LogLine(1.0, text) for text in LOG)
    assert [line.text for line in lines_of_launch(lines, request_id, launch)] == expected


def test_of_a_runner_nothing_before_the_start_is_shown_and_nothing_is_read_behind_the_end() -> None:
    lines = (LogLine(1.0, text) for text in LOG[1:])
    assert [line.text for line in lines_of_launch(lines, "b", 2, is_runner=True)] == LOG[5:7]
    assert [line.text for line in lines] == LOG[8:]


def test_what_stands_before_the_end_of_a_launch_whose_start_was_not_read_is_its_output() -> None:
    """A part of a long log begins behind the start."""
    lines = (LogLine(1.0, text) for text in LOG[1:])
    assert [line.text for line in lines_of_launch(lines, "a", 1, is_runner=True)] == ["of a", "unfinished"]
    lines = (LogLine(1.0, text) for text in LOG[2:])
    assert [line.text for line in lines_of_launch(lines, "a", 1, is_runner=True)] == ["unfinished"]


def test_all_lines_of_a_log_without_marks_belong_to_its_launch() -> None:
    lines = [LogLine(None, "one"), LogLine(None, "ecs-queue runner: start of request")]
    assert list(lines_of_launch(lines, "a", 1)) == lines


def test_of_a_runner_that_never_started_a_command_its_own_lines_are_shown() -> None:
    lines = [LogLine(None, f"ecs-queue runner: sentence {number}") for number in range(101)]
    assert list(lines_of_launch(lines, "a", 1, is_runner=True)) == lines[1:]
    assert list(lines_of_launch(lines, "a", 1, is_runner=True, unmarked=200)) == lines
    assert not list(lines_of_launch([*lines, LogLine(None, LOG[0])], "b", 1, is_runner=True))
