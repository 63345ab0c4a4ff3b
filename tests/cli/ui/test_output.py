"""Tables, lines and durations."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest

from ecs_queue.cli.ui import output
from ecs_queue.cli.ui.durations import format_duration


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.00 s"),
        (0.004, "0.00 s"),
        (0.42, "0.42 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400, "1 d"),
        (270000, "3 d 3 h"),
    ],
)
def test_a_duration_has_the_units_that_fit(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


def test_control_characters_never_reach_a_terminal() -> None:
    assert output.sanitize("a\x1b]0;title\x07\r\nb\u2028c\x9bd") == "a ]0;title b c d"


@pytest.mark.parametrize("mark", ["\u202a", "\u202e", "\u2066", "\u2069"])
def test_nothing_turns_the_direction_of_what_follows(mark: str) -> None:
    assert output.sanitize(f"a{mark}b") == "a b"


@pytest.mark.parametrize("text", ["Bu\u0308r", "a\u200bbc", "a\u0301b\u20ddc", "ab\u00ad", "世c"])
def test_a_character_without_a_column_counts_for_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("a", "b"), [(text, "|"), ("abc", "|")])
    assert capsys.readouterr().out == f"a    b\n{text}  |\nabc  |\n"


def test_a_table_for_machines_is_aligned_and_its_wide_characters_count_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.print_table(("id", "state"), [("世界", "SUCCESS"), ("abcdef", "FAILED\n")])
    assert capsys.readouterr().out == "id      state\n世界    SUCCESS\nabcdef  FAILED\n"


class FakeTerminal:
    """Stands for stdout being looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(output, "is_terminal", lambda *_: True)
        monkeypatch.setenv("COLUMNS", "100")


def test_a_table_for_people_takes_cells_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTerminal(monkeypatch)
    output.print_table(("id", "[red]reason :smile:"), [("a1", "[red]not markup[/red] [/] :smile:")])
    shown = capsys.readouterr().out
    assert "[red]not markup[/red] [/] :smile:" in shown
    assert "[red]reason :smile:" in shown
    assert "─" in shown


def test_pairs_leave_out_what_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_fields([("id", "a1"), ("reason", ""), ("state", "SUCCESS")])
    assert capsys.readouterr().out == "id      a1\nstate   SUCCESS\n"


def test_a_word_that_is_too_long_for_a_line_stands_below_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = "arn:aws:ecs:us-east-1:123456789012:task/local/294c77e99c1b481684f504d62df3facd"
    fields = [("id", "a1"), ("  submitted by", "ann"), ("  task", arn)]
    FakeTerminal(monkeypatch)
    output.print_fields(fields)
    assert capsys.readouterr().out.endswith(f"  task          {arn}\n")
    monkeypatch.setenv("COLUMNS", "80")
    output.print_fields(fields)
    assert capsys.readouterr().out == f"id              a1\n  submitted by  ann\n  task\n    {arn}\n"
    monkeypatch.undo()
    output.print_fields(fields)
    assert f"  task          {arn}\n" in capsys.readouterr().out


def test_the_last_column_that_fits_in_part_is_shortened() -> None:
    headers, rows = ("id", "state", "labels", "reason"), [("a1", "FAILED", "cost-center=4711, team=data", "why")]
    assert output.fit_columns(headers, rows, 40) == (headers[:3], [["a1", "FAILED", "cost-center=4711, …"]])
    assert output.fit_columns(headers, rows, 20) == (headers[:2], [["a1", "FAILED"]])


def test_a_state_is_coloured_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTerminal(monkeypatch)
    styled: list[dict[str, Any]] = []

    def style(text: str, **how: Any) -> str:
        styled.append(how)
        return text

    monkeypatch.setattr(click, "style", style)
    output.print_fields([("state", "FAILED"), ("id", "a1")])
    assert styled == [{"fg": "red"}]
    assert capsys.readouterr().out == "state  FAILED\nid     a1\n"


def test_json_is_one_line_of_utf_8(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output.print_json({"reason": "grüße\n世界"})
    line = capfdbinary.readouterr().out
    assert line.count(b"\n") == 1
    assert "世界".encode() in line
    assert json.loads(line) == {"reason": "grüße\n世界"}


def test_long_text_is_shortened_to_what_fits() -> None:
    assert output.truncate("abcdef", 6) == "abcdef"
    assert output.truncate("abcdefg", 6) == "abcde…"


def test_a_long_text_is_cut_between_two_words_where_that_costs_little() -> None:
    assert output.truncate("the image cannot be pulled", 30) == "the image cannot be pulled"
    assert output.truncate("the image cannot be pulled", 21) == "the image cannot be …"
    assert output.truncate("CannotPullContainerError: x", 12) == "CannotPullC…"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_live_table_leaves_out_what_does_not_fit_and_shortens_between_words(width: int) -> None:
    reason = "stopped by the operator who is on call"
    headers, (row,) = output.fit_columns(
        ("id", "state", "command", "reason"), [("a" * 36, "SUCCESS", "sleep 1", reason)], width
    )
    assert len(headers) == len(row)
    assert row[0] == "a" * 36
    assert all(word in [*reason.split(), "…"] for word in " ".join(row[3:]).split())
    assert len(row) == {40: 1, 60: 3, 80: 4, 120: 4}[width]
