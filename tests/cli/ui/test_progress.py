"""A bar on a terminal, otherwise lines."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest

from ecs_queue.cli.ui.progress import Progress, ProgressBar, open_progress, remaining_text


class FakeTerminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with open_progress(200, "ended") as work:
        assert type(work) is Progress
        for seconds in (1, 3.9, 0.2, 4, 2):
            now[0] += seconds
            work.advance(10)
        work.print_line('{"id": "a1"}')
    shown = capsys.readouterr()
    assert shown.err == "30/200 ended\n50/200 ended\n"
    assert shown.out == '{"id": "a1"}\n'


def test_a_bar_counts_on_the_terminal_and_leaves_the_answer_to_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    with open_progress(3, "ended") as work:
        assert isinstance(work, ProgressBar)
        work.advance(2)
        work.print_line('{"id": "a1"}')
        work.advance()
    assert "3/3" in screen.getvalue()
    assert "ended" in screen.getvalue()
    assert capsys.readouterr().out == '{"id": "a1"}\n'


def test_on_one_screen_the_answer_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", FakeTerminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    line = '{"id": "a1", "reason": "[bold] repo:key:1 :smile: ' + "x" * 200 + '"}'
    with open_progress(3, "ended") as work:
        work.print_line(line)
    assert line in screen.getvalue()


@pytest.mark.parametrize(
    ("ended", "running", "failed", "shown"),
    [
        (0, 0, 0, "ended, 200 left"),
        (0, 8, 0, "ended, 8 running, 200 left"),
        (50, 0, 0, "ended, 150 left, about 5 min"),
        (150, 7, 3, "ended, 7 running, 3 failed, 50 left, about 33.3 s"),
        (200, 0, 1, "ended, 1 failed"),
    ],
)
def test_the_rest_takes_as_long_a_request_as_what_has_ended(ended: int, running: int, failed: int, shown: str) -> None:
    assert remaining_text(200, ended, running, failed, 100.0) == shown


def test_the_label_is_asked_for_whenever_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, failed = [100.0], [3]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with open_progress(200, lambda: f"ended, {failed[0]} failed") as work:
        now[0] += 6
        work.advance(10)
        failed[0] = 4
        now[0] += 6
        work.advance(10)
    assert capsys.readouterr().err == "10/200 ended, 3 failed\n20/200 ended, 4 failed\n"


@pytest.mark.parametrize("columns", [80, 160])
def test_a_bar_is_one_line_at_every_width(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    screen = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    label = remaining_text(1200, 700, 64, 30, 4000.0)
    with open_progress(1200, lambda: label) as work:
        work.advance(700)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "\n").split("\n")
    (shown,) = {line for line in lines if "700/1200" in line}
    assert shown.endswith(label) == (columns == 80)
    assert len(shown) == columns
    assert "ended, 64 running, 30 failed, 500 left, about 47 min" in shown
    assert ("0:00:0" in shown) == (columns == 160)
