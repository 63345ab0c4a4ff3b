"""The lines that name a request in a runner's log."""

from __future__ import annotations

import os

import pytest

from ecs_queue.runner.log_lines import LogLine, format_line, parse_line, write_line

LINES = [LogLine("etl_42-a", 1, 7), LogLine("a", 3, 1, 0), LogLine("a", 3, 1, 143, True)]


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_read_as_it_was_written_also_behind_a_commands_last_words(line: LogLine) -> None:
    assert parse_line(format_line(line)) == line
    assert parse_line(f"no newline{format_line(line)}\n") == line


@pytest.mark.parametrize(
    "text",
    [
        *("", "ecs-queue runner: the server answers again", "ecs-queue runner: start of request a b, launch 1, turn 1"),
        "ecs-queue runner: end of request a, launch 1, turn 1",
        "ecs-queue runner: start of request a, launch 1, turn 1, exit code 0",
    ],
)
def test_other_output_is_no_such_line(text: str) -> None:
    assert parse_line(text) is None


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    read_end, write_end = os.pipe()
    write_line("one", write_end)
    assert os.read(read_end, 100) == b"one\n"
    os.close(read_end)
    write_line("two", write_end)
    os.close(write_end)
    write_line("three", write_end)
