"""What a container wrote reaches a terminal without what would command it, and a pipe as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_queue.cli.ui.log_view import print_log_line, terminal_lines
from ecs_queue.container_logs.base import LogLine


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("  indented\tand ü 🚀", ["  indented\tand ü 🚀"]),
        ("\x1b[31;1mred\x1b[0m", ["red"]),
        ("\x1b]0;a title\x07text\x1b]52;c;Y29weQ==\x1b\\more", ["textmore"]),
        ("\x1bP+q544e\x1b\\a\x1b(0b\x1bc", ["ab"]),
        ("\x9b2Ja\x9dtitle\x9cb\x90q\x9c", ["ab"]),
        ("10%\r50%\r100%\r\n", ["10%", "50%", "100%"]),
        ("bell\x07 back\x08 \udcff", ["bell back "]),
        ("\x1b[", [""]),
        ("\x1b]unended", [""]),
    ],
)
def test_nothing_that_a_terminal_obeys_is_left(text: str, shown: list[str]) -> None:
    assert list(terminal_lines(text)) == shown


@given(st.text(st.sampled_from("\x1b\x9b\x9d\x9c\x07[]P\\;0mJab\r\t \u2028\udc80"), max_size=40))
def test_whatever_it_writes_no_control_character_but_a_tab_is_left(text: str) -> None:
    assert not [each for part in terminal_lines(text) for each in part if each < " " and each != "\t"]
    assert not [each for part in terminal_lines(text) for each in part if "\x7f" <= each <= "\x9f"]


def test_a_terminal_gets_it_cleaned_and_a_pipe_or_raw_as_it_was(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = LogLine(None, b"\x1b[31mred\xff".decode("utf-8", "surrogateescape"))
    print_log_line(line)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_log_line(line)
    print_log_line(line, raw=True)
    print_log_line(LogLine(None, "lone \ud800"), raw=True)
    raw = b"\x1b[31mred\xff\n"
    assert capsysbinary.readouterr().out == raw + b"red\n" + raw + b"lone \\ud800\n"
