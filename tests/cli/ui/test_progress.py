"""A bar on a terminal, otherwise lines."""

from __future__ import annotations

import io
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
    line = '{"id": "a1", "reason": "[bold]' + "x" * 200 + '"}'
    with open_progress(3, "ended") as work:
        work.print_line(line)
    assert line in screen.getvalue()


@pytest.mark.parametrize(
    ("ended", "failed", "shown"),
    [
        (0, 0, "ended, 200 left"),
        (50, 0, "ended, 150 left, about 5 min more"),
        (150, 3, "ended, 3 failed, 50 left, about 33.3 s more"),
        (200, 1, "ended, 1 failed"),
    ],
)
def test_the_rest_takes_as_long_a_request_as_what_has_ended(ended: int, failed: int, shown: str) -> None:
    assert remaining_text(200, ended, failed, 100.0) == shown


def test_the_label_of_lines_and_of_a_bar_can_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with open_progress(200, "ended") as work:
        now[0] += 6
        work.set_label("ended, 3 failed")
        work.advance(10)
    assert capsys.readouterr().err == "10/200 ended, 3 failed\n"
    monkeypatch.undo()
    screen = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    with open_progress(3, "ended") as work:
        work.set_label("ended, 1 failed")
        work.advance()
    assert "ended, 1 failed" in screen.getvalue()
